// Clipping by each parameter's own norm, judged first: a norm that overflows changes no byte, and the step's coefficient is nobody's.
import { lomo } from '@lomo/optim';
import type { OptimizerOptions } from '@lomo/optim';
import { describe, expect, test } from 'vitest';
import { bytesStore } from './bytes_store.ts';
import { poisoned, poisonOps } from './poison.ts';
import { refusal, Trial } from './trial.ts';

const ways: readonly (readonly [string, () => Partial<OptimizerOptions>])[] = [
  ['a second backward', () => ({})],
  ['memory', () => ({ spill: 'memory' })],
  ['a store', () => ({ spill: bytesStore() })],
];

describe.each(ways)('atomic, %s', (_, way) => {
  test.each(['f32', 'bf16', 'f16'] as const)('%s: finite gradients whose squares are not', async (dtype) => {
    const site = { at: 'block 0', value: 1e30, sick: false };
    const trial = new Trial({
      blocks: 2, tokens: 16, count: 2, precision: 'f32', dtype, ops: poisonOps, stages: (toy) => poisoned(toy, site),
      optimizer: { rule: lomo, atomic: true, clip: { norm: 0.2, scope: 'parameter' }, ...way() },
    });
    await trial.step(1);
    const before = await trial.digest();
    site.sick = true;
    const error = await refusal(() => trial.step(2));
    expect(error.code).toBe('NonFiniteGradient');
    expect(await trial.digest()).toBe(before);
  });
});

test.each([false, true])('atomic %s: no step is said to be clipped by the norm of its last parameter', async (atomic) => {
  const trial = new Trial({ optimizer: { rule: lomo, atomic, clip: { norm: 1e-3, scope: 'parameter' } } });
  expect(await trial.step(1)).toMatchObject({ gradNorm: 0, clipCoefficient: 1 });
});
