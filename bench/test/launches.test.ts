// A recorded step is the whole step, and replaying it changes nothing but the clock.
import { cpu } from '@lomo/cpu';
import { lomo } from '@lomo/optim';
import { afterAll, expect, test } from 'vitest';
import type { Setup } from '../src/assembly.ts';
import { planStep } from '../src/assembly.ts';
import { RecordedStep } from '../src/launches.ts';
import { deliver, geometricMean, inTurn, ratios, spread, table } from '../src/manners.ts';
import { modelConfig } from '../src/models.ts';
import { distinct, judge } from '../src/ops.ts';

const backend = cpu({ threads: 1 });
afterAll(() => backend[Symbol.asyncDispose]());

test('every launch of a step is recorded and timed, in order and alone', async () => {
  const setup: Setup = { json: modelConfig('1m', { num_hidden_layers: 1 }), dtype: 'f32', seq: 32, batch: 2, microBatches: 1, rule: lomo, keeps: true };
  const plan = await planStep(backend, setup);
  const step = await RecordedStep.make(backend, setup, 1);
  expect(step.launches).toHaveLength(plan.launches.get('step')!);
  const { times, between } = await step.inOrder(3);
  expect(times).toHaveLength(step.launches.length);
  expect(times.every((ms) => ms > 0)).toBe(true);
  expect(between).toBeGreaterThan(0);
  const product = distinct(step.launches).find(({ op, shapes }) => op === 'matmul' && shapes === 'f32[64, 128] f32[344, 128] -> f32[64, 344]')!;
  expect(product.flops).toBe(2 * 64 * 128 * 344);
  expect(product.bytes).toBe(4 * (64 * 128 + 344 * 128 + 64 * 344));
  const [alone = NaN] = await step.alone([product]);
  expect(alone).toBeGreaterThan(0);
  // Twice as fast a machine, half the share.
  const limits = { flops: product.flops / alone, bytes: Infinity };
  expect(judge(product, alone, limits).bound).toBe('products');
  expect(judge(product, alone, limits).share).toBeCloseTo(1);
  expect(judge(product, alone, { ...limits, flops: 2 * limits.flops }).share).toBeCloseTo(0.5);
  step.free();
});

test('sides run in turn, and ratios are taken round by round', async () => {
  const order: string[] = [];
  const side = (name: string, values: number[]) => async () => (order.push(name), values.shift()!);
  const found = await inTurn(3, { ours: side('ours', [2, 4, 9]), peer: side('peer', [1, 4, 3]) });
  expect(order).toEqual(['ours', 'peer', 'ours', 'peer', 'ours', 'peer']);
  expect(ratios(found.ours, found.peer)).toEqual({ min: 1, median: 2, max: 3 });
  expect(spread([4, 1]).median).toBe(2.5);
  expect(geometricMean([1, 4])).toBeCloseTo(2);
  expect(table([['a', 'b'], ['long', '10']])).toBe('a      b\nlong  10');
});

test('a missed bar ends with status 1 where it is checked', () => {
  const written: string[] = [];
  const { write } = process.stdout;
  process.stdout.write = (chunk: string | Uint8Array) => (written.push(String(chunk)), true);
  try {
    const report = { name: 'x', lines: ['line'], figure: 'figure', missed: ['too slow'], data: { ratio: 0.5 } };
    expect(deliver(report, { json: false, save: false, check: true })).toBe(1);
    expect(deliver(report, { json: false, save: false, check: false })).toBe(0);
    expect(deliver({ ...report, missed: [] }, { json: true, save: false, check: true })).toBe(0);
  } finally {
    process.stdout.write = write;
  }
  expect(written[0]).toContain('line\nmissed: too slow\nfigure\n');
  expect(JSON.parse(written[2]!)).toMatchObject({ name: 'x', ratio: 0.5, missed: [] });
});
