// rules_bf16/: every update rule on bf16 weights, rounded to nearest after every step; and how far 16 bits are from our own f32 run.
import { toBf16 } from '@lomo/tensor';
import { Comparison } from '../compare.ts';
import { readJson, rulesBf16File } from '../format.ts';
import type { Row } from '../row.ts';
import { compared, skipped } from '../row.ts';
import { runRule } from '../ruleRun.ts';
import type { RuleStep } from '../ruleRun.ts';
import type { Context, Discover } from '../section.ts';
import { readTensors, under } from '../tensorFile.ts';
import type { GoldenTensor } from '../tensorFile.ts';

/**
 * Weights that may differ, for each step and weight: f32 arithmetic in another order differs in the last bits of p', and where a rounding's
 * tie lies between, the bf16 does. A unit of bf16 is 65,536 of f32; eight of those, either way, is more than the longest rule's rounding.
 */
const flipsEach = 16 / 65_536;
/** The 16-bit run is as far from our f32 run as PyTorch's two are from each other, up to this factor: flips are in both. */
const apart = 1.1;

/** rules_bf16/, where there is a rules.json. */
export const rulesBf16: Discover = (folder) => (folder.has('rules_bf16', 'rules.json') ? [{ name: 'rules_bf16', rows }] : []);

async function* rows({ folder, engine, judge }: Context): AsyncGenerator<Row> {
  const { steps, kept, gradients: count, runs } = await readJson(folder.path('rules_bf16', 'rules.json'), rulesBf16File);
  if (!folder.has('rules_bf16', 'rules.safetensors')) {
    yield skipped('rules_bf16', 'rules.safetensors is not in the folder');
    return;
  }
  const golden = await readTensors(folder.path('rules_bf16', 'rules.safetensors'));
  const given = { start: under(golden, 'start/'), gradients: (t: number) => under(golden, `gradient/${((t - 1) % count) + 1}/`), steps };
  for (const [run, described] of Object.entries(runs)) {
    const at = `rules_bf16/${run}`;
    const entry = { ...described, lr: Math.fround(described.lr) };
    const nearest = await runRule(engine, entry, { ...given, dtype: 'bf16' });
    for (const step of kept) yield* flips(`${at}/weights after ${step}`, nearest[step - 1]!, { want: under(golden, `${run}/${step}/`), step });
    if (entry.clip_coefficient !== null) {
      const named = nearest.map(({ coefficient }, i) => ({ name: `step ${i + 1}`, got: coefficient, want: entry.clip_coefficient![i] ?? NaN }));
      yield judge.relative(`${at}/clip coefficients`, named, 2 ** -24);
    }
    const wide = await runRule(engine, entry, given);
    const distance = relL2(nearest.at(-1)!, wide.at(-1)!);
    yield compared(`${at}/to nearest, against f32`, { error: distance, bar: apart * described.float32_run_rel_l2, measure: 'rel_l2', note: `PyTorch's are ${described.float32_run_rel_l2} apart` });
    const stochastic = await runRule(engine, entry, { ...given, dtype: 'bf16', rounding: 'stochastic' });
    // A rounding adds an error of variance a quarter of the unit squared at most, the unit 2^-7 of the weight at most, each step anew.
    yield compared(`${at}/stochastic, against f32`, { error: relL2(stochastic.at(-1)!, wide.at(-1)!), bar: Math.sqrt(steps) * 2 ** -8, measure: 'rel_l2', note: `to nearest it is ${distance.toExponential(1)}` });
  }
}

/** How many weights differ, and by how many units of bf16 at most. */
function* flips(name: string, { weights }: RuleStep, golden: { readonly want: ReadonlyMap<string, GoldenTensor>; readonly step: number }): Generator<Row> {
  let [differ, units, count, worst] = [0, 0, 0, ''];
  for (const [tensor, { values: want }] of golden.want) {
    const got = weights.get(tensor);
    if (got === undefined || got.length !== want.length) throw new Error(`${name}: ${tensor} is not a tensor of ${want.length} here`);
    want.forEach((x, i) => {
      count++;
      if (Object.is(x, got[i])) return;
      differ++;
      const distance = Math.abs(ordinal(got[i]!) - ordinal(x));
      if (distance > units) [units, worst] = [distance, `${tensor}, element ${i}`];
    });
  }
  if (count === 0) throw new Error(`rules.safetensors has no weights for ${name}`);
  yield compared(`${name}`, { error: differ, bar: Math.ceil(flipsEach * golden.step * count), measure: 'exact', note: `${differ} of ${count} weights differ` });
  yield compared(`${name}, distance`, { error: units, bar: 1, measure: 'units', note: worst });
}

/** bf16 numbers counted from 0 in their order: neighbours differ by 1. */
function ordinal(x: number): number {
  const bits = toBf16(Math.abs(x));
  return x < 0 ? -bits : bits;
}

function relL2(got: RuleStep, want: RuleStep): number {
  const comparison = new Comparison();
  for (const [name, values] of want.weights) comparison.add(name, { got: got.weights.get(name)!, want: values });
  return comparison.relL2;
}
