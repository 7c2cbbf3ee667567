// The kernels of telemetry: the rows' sums of an update made elsewhere, and the sum of the rows, in one order whatever the tiles and threads.
import type { Op, View } from '@lomo/tensor';
import { defineOp, matrixOf, numel } from '@lomo/tensor';
import { rowWidth, writeRowSums } from './row_sums.ts';
import { sampleUpdate } from './sample.ts';
import { scalar } from './update.ts';

type None = Record<never, number>;

/** The rows' sums of an update that somebody else made. ins before, p of one dtype [rows, k], g f32, scalars; out sums f32 [rows, 8], what was intended 0. */
export const updateSumsOp: Op<None> = defineOp({
  name: 'update_sums',
  attributes: [],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: (ins) => [{ shape: [matrixOf(ins[0]!.shape)[0], rowWidth], dtype: 'f32' }],
  reference: ({ ins, outs }) => {
    const [before, p, g, scalars] = ins as [View, View, View, View];
    const scale = scalars.data[scalar.lossScale]!;
    writeRowSums(outs[0]!, before.shape, (i) => ({ before: before.data[i]!, next: null, stored: p.data[i]!, g: g.data[i]! / scale }));
  },
  flops: (ins) => 8 * numel(ins[0]!.shape),
  sample: (random) => {
    const s = sampleUpdate(random);
    const moved = Float64Array.from(s.p.values, (x) => (random.int(0, 1) === 0 ? x : x * 1.5));
    return { ins: [s.p, { ...s.p, values: moved }, { ...s.g, values: Float64Array.from(s.g.values, (x) => (Number.isFinite(x) ? x : 0)) }, s.scalars], attributes: {} };
  },
});

/** ins sums f32 [rows, 8]; inout total f32 [8, 2], each a double as high + low: the rows are added one after the other, in double. */
export const updateTotalOp: Op<None> = defineOp({
  name: 'update_total',
  attributes: [],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }) => {
    const [sums, total] = [ins[0]!, inouts[0]!];
    for (let c = 0; c < rowWidth; c++) {
      let sum = total.data[2 * c]! + total.data[2 * c + 1]!;
      for (let r = 0; r < sums.shape[0]!; r++) sum += sums.data[r * rowWidth + c]!;
      total.data[2 * c] = Math.fround(sum);
      total.data[2 * c + 1] = sum - total.data[2 * c]!;
    }
  },
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const rows = random.int(1, 300);
    return {
      ins: [{ shape: [rows, rowWidth], dtype: 'f32', values: random.normal(rows * rowWidth).map(Math.abs) }],
      inouts: [{ shape: [rowWidth, 2], dtype: 'f32', values: Float64Array.from({ length: 2 * rowWidth }, (_, i) => (i % 2 === 0 ? random.pick([0, 1000]) : 0)) }],
      attributes: {},
    };
  },
});
