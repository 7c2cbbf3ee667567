// What bench train makes of its cells: bars held, missed, and out of any program's reach.
import { expect, test } from 'vitest';
import type { OursResult } from '../src/measure.ts';
import type { Cell } from '../src/train.ts';
import { judge, ratiosOf } from '../src/train.ts';

interface Rates {
  readonly model?: string;
  readonly dtype?: 'f32' | 'bf16';
  readonly barred?: boolean;
  readonly ours: readonly number[];
  readonly stock?: readonly number[];
  readonly tuned?: readonly number[];
  readonly losses?: readonly number[];
}

/** A cell in which a token a second is a GFLOP/s, and the best product runs at 400. */
function cell({ model = '110m', dtype = 'f32', barred = true, ours, stock, tuned, losses = [2, 1] }: Rates): Cell {
  const peer = (rates: readonly number[]) => rates.map((rate) => ({ tokens_per_s: rate, gflop_per_s: rate, losses, rss_mib: { peak: 1 }, peak_minus_imports_mib: 1, versions: { torch: '2' } }));
  return {
    name: `${model} ${dtype}`,
    model,
    dtype,
    barred,
    ours: ours.map((rate) => ({ tokens_per_s: rate, gflop_per_s: rate, product_gflop_per_s: 400, losses: [2, 1] }) as unknown as OursResult),
    peers: { ...(stock === undefined ? {} : { stock: peer(stock) }), ...(tuned === undefined ? {} : { tuned: peer(tuned) }) },
  };
}

test('rounds are compared with rounds', () => {
  expect(ratiosOf(cell({ ours: [100, 300], tuned: [100, 150] }), 'tuned')).toEqual({ min: 1, median: 1.5, max: 2 });
  expect(ratiosOf(cell({ ours: [100] }), 'stock')).toBeNull();
});

test('bars held, and by name when missed', () => {
  expect(judge([cell({ ours: [360], stock: [150], tuned: [350] })])).toMatchObject({ missed: [], unreachable: [], held: { length: 3 } });
  const { missed } = judge([cell({ ours: [300], stock: [190], tuned: [350] })]);
  expect(missed).toEqual([
    'f32 against stock, geometric mean of 1: 1.58 x, the bar is 2.00 x',
    '110m f32 against tuned: 0.86 x, the bar is 1.00 x',
    '110m f32: share of the product peak: 75 %, the bar is 88 %',
  ]);
});

test('a lead that the fastest product would not give is out of reach, and not called missed', () => {
  const { missed, unreachable } = judge([cell({ ours: [370], stock: [250], tuned: [360] })]);
  expect(missed).toEqual([]);
  expect(unreachable).toEqual([expect.stringMatching(/1\.48 x; the bar of 2\.00 x is out of reach here: stock runs at 63 % of the best product's rate on this machine, so nothing exceeds 1\.60 x/)]);
});

test('other rules and recomputation have no bars; other losses are never let pass', () => {
  expect(judge([cell({ barred: false, ours: [100], stock: [200], tuned: [200] })])).toMatchObject({ held: [], missed: [] });
  expect(judge([cell({ barred: false, ours: [100], tuned: [1], losses: [2, 1.1] })]).missed).toEqual([expect.stringMatching(/losses differ by 9\.1e-2/)]);
});
