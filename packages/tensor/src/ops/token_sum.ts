// The canonical sum over tokens: chunks of `traits.chunk` rows counted from the step's first, ascending; any split gives the same bits.
import { shapeError } from '../errors.ts';
import type { Op, View } from '../op.ts';
import { defineOp } from '../op.ts';
import { dimOf, numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** Adds one row, whose global index is `index`, to sums [2, n] = (closed chunks, open chunk). */
export function addTokenRow(sums: View, index: number, options: { readonly chunk: number; readonly value: (j: number) => number }): void {
  const n = dimOf(sums, 1);
  if (index > 0 && index % options.chunk === 0) {
    for (let j = 0; j < n; j++) {
      sums.data[j]! += sums.data[n + j]!;
      sums.data[n + j] = 0;
    }
  }
  for (let j = 0; j < n; j++) sums.data[n + j]! += options.value(j);
}

/** sums += rows of x, whose first row has global index `start`. */
export const tokenSumOp: Op<{ readonly start: number }> = defineOp({
  name: 'token_sum',
  attributes: ['start'],
  dtypes: ['f32', 'bf16'],
  infer: (ins, _, inouts) => {
    const [x, sums] = [ins[0]!, inouts[0]!];
    if (x.shape.length !== 2 || sums.shape[0] !== 2 || sums.shape[1] !== x.shape[1]) throw shapeError('token_sum', 'x [R, n] and sums [2, n]', [x.shape, sums.shape]);
    return [];
  },
  reference: ({ ins, inouts }, { start }, { chunk }) => {
    const x = ins[0]!;
    const [rows, n] = [dimOf(x, 0), dimOf(x, 1)];
    for (let r = 0; r < rows; r++) addTokenRow(inouts[0]!, start + r, { chunk, value: (j) => x.data[r * n + j]! });
  },
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.pick([1, 7, 64, 600, 1030]), random.int(1, 40)];
    return {
      ins: [{ shape, dtype: 'real', values: random.normal(numel(shape)) }],
      inouts: [{ shape: [2, shape[1]!], dtype: 'f32', values: random.normal(2 * shape[1]!) }],
      attributes: { start: random.pick([0, 64, 500, 512]) },
    };
  },
});

/** v = closed + open. */
export const sumsValueOp: Op<Record<never, number>> = defineOp({
  name: 'sums_value',
  attributes: [],
  dtypes: ['f32'],
  infer: (ins) => [{ shape: [dimOf(ins[0]!, 1)], dtype: 'f32' }],
  reference: ({ ins, outs }) => {
    const n = dimOf(ins[0]!, 1);
    for (let j = 0; j < n; j++) outs[0]!.data[j] = ins[0]!.data[j]! + ins[0]!.data[n + j]!;
  },
  flops: (ins) => dimOf(ins[0]!, 1),
  sample: (random) => {
    const n = random.int(1, 70);
    return { ins: [{ shape: [2, n], dtype: 'f32', values: random.normal(2 * n) }], attributes: {} };
  },
});

/** sums f32 [2, n] += x [R, n], row 0 at global row `start`. */
export function tokenSum(sums: Tensor, x: Tensor, start: number): void {
  x.device.run(tokenSumOp, { ins: [x], inouts: [sums] }, { start });
}

/** The sum so far, f32 [n]; into `into` where given. */
export function sumsValue(sums: Tensor, into?: Tensor): Tensor {
  return sums.device.run(sumsValueOp, into === undefined ? { ins: [sums] } : { ins: [sums], outs: [into] }, {})[0]!;
}
