// rules/: every update rule alone, on given gradients, through the optimizer that training uses: weights and state after each step.
import { Dense, Grad, StepTensor } from '@lomo/tensor';
import type { Device, Parameter } from '@lomo/tensor';
import type { Optimizer } from '@lomo/optim';
import { Comparison } from '../compare.ts';
import type { RuleEntry } from '../format.ts';
import { readJson, rulesFile } from '../format.ts';
import type { Row } from '../row.ts';
import { skipped } from '../row.ts';
import { needsL2, optimizerOf } from '../ruleEntry.ts';
import type { Context, Discover } from '../section.ts';
import type { GoldenTensor } from '../tensorFile.ts';
import { readTensors, under } from '../tensorFile.ts';

/** rules/, where there is a rules.json. */
export const rules: Discover = (folder) => (folder.has('rules', 'rules.json') ? [{ name: 'rules', rows }] : []);

type Golden = ReadonlyMap<string, GoldenTensor>;

interface Step {
  readonly weights: ReadonlyMap<string, Float64Array>;
  /** By 'NAME.r' as the file names it. */
  readonly state: ReadonlyMap<string, Float64Array>;
  readonly coefficient: number;
}

async function* rows(context: Context): AsyncGenerator<Row> {
  const { folder, judge } = context;
  const { steps, runs } = await readJson(folder.path('rules', 'rules.json'), rulesFile);
  if (!folder.has('rules', 'rules.safetensors')) {
    yield skipped('rules', 'rules.safetensors is not in the folder');
    return;
  }
  const golden = await readTensors(folder.path('rules', 'rules.safetensors'));
  for (const [run, entry] of Object.entries(runs)) {
    const at = `rules/${run}`;
    const found = await apply(context, entry, { golden, steps });
    const distance = entry.float32_distance;
    for (const [i, { weights, state }] of found.entries()) {
      const comparison = new Comparison();
      const kept = new Comparison();
      for (const [name, { values: want }] of under(golden, `${run}/${i + 1}/`)) {
        const [weight, stored] = [weights.get(name), state.get(name)];
        if (weight !== undefined) comparison.add(name, { got: weight, want });
        else if (stored !== undefined) kept.add(name, { got: stored, want });
        else throw new Error(`rules.safetensors has ${run}/${i + 1}/${name}, which is neither a weight nor a state here`);
      }
      if (comparison.count === 0) throw new Error(`rules.safetensors has no ${run}/${i + 1}/`);
      yield* judge.tensors(`${at}/weights after ${i + 1}`, comparison, { distance, l2: needsL2(entry) });
      if (kept.count > 0) yield* judge.tensors(`${at}/state after ${i + 1}`, kept, { distance });
    }
    if (entry.clip_coefficient !== null) {
      const named = found.map(({ coefficient }, i) => ({ name: `step ${i + 1}`, got: coefficient, want: entry.clip_coefficient![i] ?? NaN }));
      yield judge.relative(`${at}/clip coefficients`, named, distance.max_rel);
    }
  }
}

/** Applies the rule `steps` times to the file's start with the file's gradients. */
function apply({ engine }: Context, entry: RuleEntry, given: { readonly golden: Golden; readonly steps: number }): Promise<readonly Step[]> {
  const { golden, steps } = given;
  return engine.onDevice(async (device) => {
    const parameters = [...under(golden, 'start/')].map(([name, { shape, values }]) => {
      const parameter = device.parameter(name, { shape, dtype: 'f32' });
      device.writeNumbers(parameter, values);
      return parameter;
    });
    const optimizer = optimizerOf(entry, device, parameters);
    const step = new StepTensor(device);
    const found: Step[] = [];
    for (let t = 1; t <= steps; t++) {
      step.begin({ step: t, seed: 0, lr: entry.lr, trained: 1 });
      await settleAll(device, { optimizer, step, parameters, gradients: under(golden, `gradient/${t}/`) });
      found.push({ ...(await readAll(device, optimizer, parameters)), coefficient: (await step.outcome()).clipCoefficient });
    }
    return found;
  });
}

interface Update {
  readonly optimizer: Optimizer;
  readonly step: StepTensor;
  readonly parameters: readonly Parameter[];
  readonly gradients: Golden;
}

/** Settles every parameter in every pass, as the walk back does. */
async function settleAll(device: Device, { optimizer, step, parameters, gradients }: Update): Promise<void> {
  for (const pass of optimizer.passes) {
    for (const [order, p] of parameters.entries()) {
      const values = gradients.get(p.path)?.values;
      if (values === undefined) throw new Error(`rules.safetensors has no gradient for ${p.path}`);
      const tensor = device.allocate({ shape: p.shape, dtype: 'f32' }, 'gradient');
      device.writeNumbers(tensor, values);
      const grad = new Grad(device, p.shape, [new Dense(tensor)]);
      pass.settle(p, grad, { step, order });
      grad.release();
    }
    await pass.finish(step);
  }
}

async function readAll(device: Device, optimizer: Optimizer, parameters: readonly Parameter[]): Promise<Omit<Step, 'coefficient'>> {
  const weights = new Map<string, Float64Array>();
  const state = new Map<string, Float64Array>();
  for (const p of parameters) weights.set(p.path, await device.readNumbers(p));
  for (const { path, name, tensor } of optimizer.state()) state.set(`${path}.${name}`, await device.readNumbers(tensor));
  return { weights, state };
}
