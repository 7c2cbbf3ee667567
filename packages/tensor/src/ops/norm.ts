// Squared norms whose bits do not depend on tiles or threads: rows in double, then one ascending sum kept as high and low part.
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { matrixOf, numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

type None = Record<never, number>;

/** s f32 [rows] = sums of squares of the rows of g f32 [rows, k]. */
export const sumSquaresOp: Op<None> = defineOp({
  name: 'sum_squares',
  attributes: [],
  dtypes: ['f32'],
  infer: (ins) => [{ shape: [matrixOf(ins[0]!.shape)[0]], dtype: 'f32' }],
  reference: ({ ins, outs }) => {
    const [rows, k] = matrixOf(ins[0]!.shape);
    for (let i = 0; i < rows; i++) {
      let sum = 0;
      for (let j = 0; j < k; j++) sum += ins[0]!.data[i * k + j]! ** 2;
      outs[0]!.data[i] = sum;
    }
  },
  flops: (ins) => 2 * numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 20), random.int(1, 150)];
    return { ins: [{ shape, dtype: 'f32', values: random.normal(numel(shape)) }], attributes: {} };
  },
});

/** total f32 [2] (a double as high + low) += s f32 [n], ascending. */
export const normAddOp: Op<None> = defineOp({
  name: 'norm_add',
  attributes: [],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }) => {
    const total = inouts[0]!.data;
    let sum = total[0]! + total[1]!;
    for (const s of ins[0]!.data) sum += s;
    total[0] = Math.fround(sum);
    total[1] = sum - total[0];
  },
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const n = random.int(1, 300);
    return {
      ins: [{ shape: [n], dtype: 'f32', values: random.normal(n).map(Math.abs) }],
      inouts: [{ shape: [2], dtype: 'f32', values: [random.pick([0, 1000]), 0] }],
      attributes: {},
    };
  },
});

/** m f32 [1] = mean of s f32 [n], summed ascending in double. */
export const meanOp: Op<None> = defineOp({
  name: 'mean',
  attributes: [],
  dtypes: ['f32'],
  infer: () => [{ shape: [1], dtype: 'f32' }],
  reference: ({ ins, outs }) => {
    let sum = 0;
    for (const s of ins[0]!.data) sum += s;
    outs[0]!.data[0] = sum / ins[0]!.data.length;
  },
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const n = random.int(1, 300);
    return { ins: [{ shape: [n], dtype: 'f32', values: random.normal(n) }], attributes: {} };
  },
});

/** Writes the rows' sums of squares of g f32 [rows, k] into s f32 [rows]. */
export function sumSquares(g: Tensor, into: Tensor): void {
  g.device.run(sumSquaresOp, { ins: [g], outs: [into] }, {});
}

/** total f32 [2] += s f32 [n]. */
export function normAdd(total: Tensor, s: Tensor): void {
  s.device.run(normAddOp, { ins: [s], inouts: [total] }, {});
}
