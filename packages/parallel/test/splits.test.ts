// What must not be visible in the bits: how a step is cut into micro-batches, how large gradient tiles are, how floats are held.
import { adalomo, adamw, lomo } from '@lomo/optim';
import type { Rounding } from '@lomo/optim';
import { describe, expect, test } from 'vitest';
import type { TrialOptions } from './trial.ts';
import { trained } from './trial.ts';

const rules = [lomo, adalomo(), adamw()].map((rule) => [rule.name, rule] as const);

describe.each(['f64', 'f32'] as const)('k micro-batches of m are one batch of k m, floats held as %s', (precision) => {
  describe.each(rules)('%s', (_, rule) => {
    const optimizer = { rule, weightDecay: 0.1 };

    test('kept factors: any split, also across chunks', async () => {
      for (const tied of [false, true]) {
        const options: TrialOptions = { tied, precision, tokens: 48, headForm: 'tiles', optimizer };
        const one = await trained({ ...options, count: 1 });
        // Micro-batches of 24, 16, 12 and 4 tokens against chunks of 8.
        for (const count of [2, 3, 4, 12]) expect(await trained({ ...options, count, accumulate: 'factors' }), `tied ${tied}, ${count}`).toBe(one);
      }
    });

    test('a buffer: micro-batches of whole chunks', async () => {
      for (const tied of [false, true]) for (const headForm of ['chunks', 'tiles'] as const) {
        const options: TrialOptions = { tied, precision, tokens: 48, headForm, optimizer };
        const one = await trained({ ...options, count: 1 });
        for (const count of [2, 3, 6]) expect(await trained({ ...options, count, accumulate: 'buffer' }), `tied ${tied}, ${headForm}, ${count}`).toBe(one);
      }
    });
  });

  test('clipped by the global norm in two passes', async () => {
    const options: TrialOptions = { precision, tokens: 48, headForm: 'tiles', optimizer: { rule: lomo, clip: { norm: 0.3 } } };
    const one = await trained(options);
    expect(await trained({ ...options, count: 4, accumulate: 'factors' })).toBe(one);
    expect(await trained({ ...options, count: 6, accumulate: 'buffer' })).toBe(one);
    expect(await trained({ ...options, optimizer: { rule: lomo } })).not.toBe(one);
  });
});

test('where a buffer would not be exact the program takes kept factors by itself', async () => {
  const options: TrialOptions = { tokens: 48, optimizer: { rule: lomo } };
  const one = await trained({ ...options, headForm: 'tiles' });
  expect(await trained({ ...options, count: 4 })).toBe(one);
  expect(await trained({ ...options, count: 4, accumulate: 'buffer', headForm: 'tiles' })).not.toBe(one);
});

describe.each(['f32', 'bf16'] as const)('tile sizes cannot be seen, %s weights', (dtype) => {
  test.each(rules)('%s', async (_, rule) => {
    for (const rounding of dtype === 'f32' ? (['nearest'] as const) : (['nearest', 'stochastic'] as const satisfies readonly Rounding[])) {
      for (const split of [{ count: 1 }, { count: 2, accumulate: 'factors' }, { count: 2, accumulate: 'buffer' }] as const) {
        const options: TrialOptions = { tied: true, dtype, ...split, optimizer: { rule, rounding, weightDecay: 0.1 } };
        const whole = await trained(options);
        // One row, three rows, half a block's matrix.
        for (const tileBytes of [1, 3 * 8 * 4, 8 * 8 * 4]) expect(await trained({ ...options, tileBytes }), `${rounding}, ${split.count}, ${tileBytes}`).toBe(whole);
      }
    }
  });
});

test('stochastic rounding depends on seed and step, not on how often it was asked', async () => {
  const options: TrialOptions = { dtype: 'bf16', optimizer: { rule: lomo } };
  const digest = await trained(options, 1);
  expect(await trained(options, 1)).toBe(digest);
  expect(await trained({ ...options, optimizer: { rule: lomo, rounding: 'nearest' } }, 1)).not.toBe(digest);
  expect(await trained({ ...options, optimizer: { rule: lomo, atomic: true } }, 1)).toBe(digest);
});
