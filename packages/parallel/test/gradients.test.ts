// The gradients that settle are those of the loss: against central differences of evaluated losses, for every way of making them.
import { lomo } from '@lomo/optim';
import { describe, expect, test } from 'vitest';
import type { TrialOptions } from './trial.ts';
import { Trial } from './trial.ts';

const splits: readonly (readonly [string, Partial<TrialOptions>])[] = [
  ['one batch', {}],
  ['kept factors', { count: 4, accumulate: 'factors' }],
  ['a buffer', { count: 4, accumulate: 'buffer' }],
];

/** Sum of the step's token losses in float64, without the rounding of a float32 read. */
async function exactLoss(trial: Trial): Promise<number> {
  let sum = 0;
  for (const batch of trial.batches(1)) {
    await trial.program.evaluate([batch]);
    for (const x of trial.backend.readExact(trial.program.step.loss)) sum += x;
  }
  return sum;
}

describe.each([['tied', true], ['untied', false]] as const)('%s', (_, tied) => {
  test.each(splits)('%s', async (_split, split) => {
    for (const headForm of ['chunks', 'tiles'] as const) {
      const trial = new Trial({ tied, headForm, ...split, optimizer: { rule: lomo } });
      const gradients = await trial.gradients(1);
      const { trained } = await trial.program.evaluate(trial.batches(1));
      expect(gradients.size).toBe(trial.parameters.length);
      // 1 / trained is a float32 in the step tensor.
      const scale = Math.fround(1 / trained);
      for (const p of trial.parameters) {
        const [g, w] = [gradients.get(p.path)!, trial.backend.readExact(p)];
        for (const i of [0, 7 % w.length, w.length - 1]) {
          const losses: number[] = [];
          for (const d of [1e-4, -1e-4]) {
            trial.backend.writeExact(p, w.map((x, at) => (at === i ? x + d : x)));
            losses.push(await exactLoss(trial));
          }
          trial.backend.writeExact(p, w);
          const numeric = ((losses[0]! - losses[1]!) / 2e-4) * scale;
          expect(Math.abs(numeric - g[i]!), `${p.path}[${i}]: ${g[i]} against ${numeric}, ${headForm}`).toBeLessThan(1e-7);
        }
      }
    }
  });
});

test('every way of making them gives the same gradients, up to the order of sums', async () => {
  for (const tied of [false, true]) {
    const one = await new Trial({ tied, optimizer: { rule: lomo } }).gradients(1);
    for (const [name, split] of splits) for (const headForm of ['chunks', 'tiles'] as const) for (const keeps of [false, true]) {
      const other = await new Trial({ tied, headForm, keeps, ...split, optimizer: { rule: lomo } }).gradients(1);
      for (const [path, g] of one) other.get(path)!.forEach((x, i) => expect(Math.abs(x - g[i]!), `${name}, ${path}`).toBeLessThan(1e-14));
    }
  }
});
