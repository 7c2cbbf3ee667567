// rules/: every update rule alone, on given gradients, through the optimizer that training uses: weights and state after each step.
import { Comparison } from '../compare.ts';
import { readJson, rulesFile } from '../format.ts';
import type { Row } from '../row.ts';
import { skipped } from '../row.ts';
import { needsL2 } from '../ruleEntry.ts';
import { runRule } from '../ruleRun.ts';
import type { Context, Discover } from '../section.ts';
import { readTensors, under } from '../tensorFile.ts';

/** rules/, where there is a rules.json. */
export const rules: Discover = (folder) => (folder.has('rules', 'rules.json') ? [{ name: 'rules', rows }] : []);

async function* rows(context: Context): AsyncGenerator<Row> {
  const { folder, judge, engine } = context;
  const { steps, runs } = await readJson(folder.path('rules', 'rules.json'), rulesFile);
  if (!folder.has('rules', 'rules.safetensors')) {
    yield skipped('rules', 'rules.safetensors is not in the folder');
    return;
  }
  const golden = await readTensors(folder.path('rules', 'rules.safetensors'));
  for (const [run, entry] of Object.entries(runs)) {
    const at = `rules/${run}`;
    const found = await runRule(engine, entry, { start: under(golden, 'start/'), gradients: (t) => under(golden, `gradient/${t}/`), steps });
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
