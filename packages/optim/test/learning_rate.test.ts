// Learning rates against transformers' to 1e-15, and against numbers worked out by hand.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ScheduleOptions } from '../src/index.ts';
import { schedule, stepsOf } from '../src/index.ts';
import { golden, hasGolden } from './golden.ts';

interface GoldenSchedule {
  readonly scheduler: string;
  readonly lr: number;
  readonly num_warmup_steps: number;
  readonly num_training_steps: number;
  readonly num_decay_steps?: number;
  readonly decay_type?: ScheduleOptions['decayShape'];
  readonly min_lr?: number;
  readonly min_lr_rate?: number;
  readonly min_lr_ratio?: number;
  readonly rates: readonly number[];
}

/** transformers' names -> ours. */
const names: Readonly<Record<string, ScheduleOptions['name']>> = {
  linear: 'linear', cosine: 'cosine', constant_with_warmup: 'constant', cosine_with_min_lr: 'cosine_with_min_lr', warmup_stable_decay: 'wsd',
};

const file = 'numbers/schedules.json';
const tables = hasGolden(file) ? golden<Record<string, GoldenSchedule>>(file) : { 'every schedule': null };

describe("transformers' get_scheduler, update by update", () => {
  test.skipIf(!hasGolden(file)).each(Object.entries(tables))(`%s (skipped where ../shared/golden/${file} is absent)`, (_, entry) => {
    const table = entry!;
    const minRatio = table.min_lr === undefined ? (table.min_lr_rate ?? table.min_lr_ratio) : table.min_lr / table.lr;
    const rate = schedule({
      name: names[table.scheduler]!,
      lr: table.lr,
      steps: table.num_training_steps,
      warmup: table.num_warmup_steps,
      ...(minRatio === undefined ? {} : { minRatio }),
      ...(table.num_decay_steps === undefined ? {} : { decay: table.num_decay_steps }),
      ...(table.decay_type === undefined ? {} : { decayShape: table.decay_type }),
    });
    expect(table.rates).toHaveLength(101);
    table.rates.forEach((expected, i) => expect(Math.abs(rate(i) - expected), `update ${i}: ${rate(i)} against ${expected}`).toBeLessThanOrEqual(1e-15));
  });
});

describe('by hand', () => {
  const spots: readonly (readonly [string, ScheduleOptions, Readonly<Record<number, number>>])[] = [
    ['constant', { name: 'constant', lr: 0.03, steps: 10 }, { 0: 0.03, 9: 0.03, 10: 0.03 }],
    ['constant after warmup', { name: 'constant', lr: 0.03, steps: 10, warmup: 3 }, { 0: 0, 1: 0.01, 2: 0.02, 3: 0.03, 9: 0.03 }],
    ['linear', { name: 'linear', lr: 0.1, steps: 10 }, { 0: 0.1, 5: 0.05, 9: 0.01, 10: 0, 12: 0 }],
    ['linear after warmup by share', { name: 'linear', lr: 0.1, steps: 10, warmup: 0.2 }, { 0: 0, 1: 0.05, 2: 0.1, 6: 0.05, 10: 0 }],
    ['cosine', { name: 'cosine', lr: 2, steps: 12 }, { 0: 2, 3: 1 + Math.SQRT1_2, 4: 1.5, 6: 1, 8: 0.5, 12: 0, 20: 0 }],
    ['cosine with a floor', { name: 'cosine_with_min_lr', lr: 2, steps: 12, minRatio: 0.25 }, { 0: 2, 4: 1.625, 6: 1.25, 12: 0.5, 20: 0.5 }],
    ['wsd, linear decay', { name: 'wsd', lr: 1, steps: 10, warmup: 2, decay: 4, decayShape: 'linear', minRatio: 0.2 }, { 0: 0.2, 1: 0.6, 2: 1, 5: 1, 6: 1, 7: 0.8, 8: 0.6, 9: 0.4, 10: 0.2 }],
    ['wsd, 1 - sqrt', { name: 'wsd', lr: 1, steps: 10, decay: 4, decayShape: '1-sqrt' }, { 0: 1, 6: 1, 7: 0.5, 9: 1 - Math.sqrt(0.75), 10: 0 }],
    ['wsd, cosine over the last fifth', { name: 'wsd', lr: 1, steps: 10 }, { 7: 1, 8: 1, 9: 0.5, 10: 0 }],
  ];
  test.each(spots)('%s', (_, options, expected) => {
    const rate = schedule(options);
    for (const [i, value] of Object.entries(expected)) expect(Math.abs(rate(Number(i)) - value), `update ${i}`).toBeLessThan(1e-15);
  });

  test('shares of the steps round up', () => {
    expect([stepsOf(0.05, 90), stepsOf(0.1, 100), stepsOf(0, 100), stepsOf(1, 100), stepsOf(7, 100)]).toEqual([5, 10, 0, 1, 7]);
  });

  test('spans that do not fit are refused', () => {
    expect(() => schedule({ name: 'wsd', lr: 1, steps: 10, warmup: 8, decay: 4 })).toThrow(/warmup of 8 and decay of 4 do not fit 10 steps/);
  });
});

test('every schedule stays between its floor and its peak, rises to the end of warmup and never rises after it', () => {
  const schedules = fc.record({
    name: fc.constantFrom('constant', 'linear', 'cosine', 'cosine_with_min_lr', 'wsd'),
    steps: fc.integer({ min: 1, max: 60 }),
    warmup: fc.double({ min: 0, max: 0.5, noNaN: true }),
    minRatio: fc.double({ min: 0, max: 1, noNaN: true }),
    decay: fc.double({ min: 0, max: 0.3, noNaN: true }),
    decayShape: fc.constantFrom('cosine', 'linear', '1-sqrt'),
  });
  fc.assert(
    fc.property(schedules, (options) => {
      const warmup = stepsOf(options.warmup, options.steps);
      // Both spans round up: in very short runs they may not fit.
      if (options.name === 'wsd' && warmup + stepsOf(options.decay, options.steps) > options.steps) return;
      const rate = schedule({ ...options, lr: 0.5 } as ScheduleOptions);
      for (let i = 0; i < options.steps; i++) {
        const [now, next] = [rate(i), rate(i + 1)];
        expect(now >= 0 && now <= 0.5 + 1e-15).toBe(true);
        if (i < warmup) expect(next).toBeGreaterThanOrEqual(now - 1e-15);
        else expect(next).toBeLessThanOrEqual(now + 1e-15);
      }
    }),
  );
});
