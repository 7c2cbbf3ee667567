// Weights in f16: an update that leaves their range anywhere changes no byte of any parameter or state, for every rule and every way of judging.
import { describe, expect, test } from 'vitest';
import type { OptimizerOptions, Rule } from '../src/index.ts';
import { adalomo, adamw, lomo, sgd } from '../src/index.ts';
import { Given } from './given.ts';

const rules: readonly Rule[] = [lomo, adalomo(), adamw(), sgd];
const ways: readonly (readonly [string, Partial<OptimizerOptions>, readonly string[]])[] = [
  ['as it is', {}, ['check', 'update']],
  ['spilled', { spill: 'memory' }, ['spill']],
  ['global norm, two passes', { clip: { norm: 1e3 } }, ['norm', 'rehearse', 'update']],
  ['global norm, spilled', { clip: { norm: 1e3 }, spill: 'memory' }, ['spill']],
  ['own norms', { clip: { norm: 1e3, scope: 'parameter' } }, ['check', 'update']],
  ['by value, to nearest', { clip: { value: 1e3 }, rounding: 'nearest' }, ['check', 'update']],
];
const half = 'f16' as const;
/** The last row of the second parameter is at the edge; tiles of one row, so that others are written before it is seen. */
const start = {
  a: { shape: [2, 2], values: [1, 2, 3, 4], dtype: half },
  w: { shape: [3, 2], values: [1, 2, 3, 4, 5, 65504], dtype: half },
  z: { shape: [2], values: [1, 1], dtype: half },
};
const fine = { a: [1, 1, 1, 1], w: [1, -1, 1, -1, 1, 1], z: [1, 1] };
const over = { ...fine, w: [1, -1, 1, -1, 1, -64] };

describe.each(rules.map((rule) => [rule.name, rule] as const))('%s', (_, rule) => {
  test.each(ways)('%s', async (_name, options, passes) => {
    for (const tileBytes of [8, 1 << 20]) {
      const make = (): Given => new Given(start, { rule, tileBytes, ...options });
      const [given, clean] = [make(), make()];
      expect(given.optimizer.passes.map(({ name }) => name)).toEqual(passes);
      for (const each of [given, clean]) expect((await each.update(fine, { step: 1, lr: 1 / 64 })).gate).toBe('open');
      const [before, { live }] = [await given.everything(), given.device.arena];
      expect((await given.update(over, { step: 2, lr: 64 })).gate).toEqual({ at: 1 });
      expect(await given.everything()).toEqual(before);
      expect(given.device.arena.live).toBe(live);
      for (const each of [given, clean]) expect((await each.update(fine, { step: 3, lr: 1 / 64 })).gate).toBe('open');
      expect(await given.everything()).toEqual(await clean.everything());
      expect(await given.everything()).not.toEqual(before);
    }
  });
});

test('only weights in f16 are rehearsed', async () => {
  const launches = async (dtype: 'f16' | 'bf16'): Promise<number> => {
    const given = new Given({ a: { ...start.a, dtype } }, { rule: lomo, atomic: true, spill: 'memory' });
    let count = 0;
    given.device.observer = { launched: (op) => (count += op.name === 'lomo_update' ? 1 : 0) };
    await given.update({ a: fine.a }, { lr: 0.1 });
    return count;
  };
  expect([await launches('bf16'), await launches('f16')]).toEqual([1, 2]);
});
