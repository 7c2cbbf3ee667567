// Root-mean-square norm over the last dimension, with its weight.
import { shapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { matrixOf, numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { Parameter } from '../tensor.ts';
import { addTokenRow } from './token_sum.ts';

/** dx; and the weight's gradient added to a running token sum. */
export const rmsNormBackwardOp: Op<{ readonly start: number }> = defineOp({
  name: 'rms_norm_backward',
  attributes: ['start'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: (ins) => [{ shape: ins[0]!.shape, dtype: ins[0]!.dtype }],
  reference: ({ ins, inouts, outs }, { start }, { chunk }) => {
    const [x, w, rstd, dy] = ins.map((v) => v.data) as [Float64Array, Float64Array, Float64Array, Float64Array];
    const [rows, h] = matrixOf(ins[0]!.shape);
    for (let r = 0; r < rows; r++) {
      const s = rstd[r]!;
      const at = r * h;
      let dot = 0;
      for (let j = 0; j < h; j++) dot += dy[at + j]! * w[j]! * x[at + j]!;
      const back = (dot * s * s * s) / h;
      for (let j = 0; j < h; j++) outs[0]!.data[at + j] = dy[at + j]! * w[j]! * s - x[at + j]! * back;
      addTokenRow(inouts[0]!, start + r, { chunk, value: (j) => dy[at + j]! * x[at + j]! * s });
    }
  },
  flops: (ins) => 10 * numel(ins[0]!.shape),
  sample: (random) => {
    const [rows, h] = [random.pick([1, 5, 64, 515]), random.int(1, 70)];
    const x = random.normal(rows * h);
    const rstd = Float64Array.from({ length: rows }, (_, r) => 1 / Math.sqrt(x.subarray(r * h, r * h + h).reduce((a, b) => a + b * b, 0) / h + 1e-5));
    const [w, dy] = [random.normal(h, 0.3, 1), random.normal(rows * h)];
    return {
      ins: [
        { shape: [rows, h], dtype: 'activation', values: x },
        { shape: [h], dtype: 'real', values: w },
        { shape: [rows], dtype: 'f32', values: rstd },
        { shape: [rows, h], dtype: 'activation', values: dy },
      ],
      // In a narrow row dy w rstd and the projection that is taken from it are nearly equal.
      terms: dy.reduce((most, d, i) => Math.max(most, Math.abs(d * w[i % h]! * rstd[Math.floor(i / h)]!)), 0),
      inouts: [{ shape: [2, h], dtype: 'f32', values: random.normal(2 * h) }],
      attributes: { start: random.pick([0, 64, 500, 512]) },
    };
  },
});

/** y = x rstd w, and rstd = 1 / sqrt(mean(x^2) + eps), f32, one a row. */
export const rmsNormOp: Op<{ readonly eps: number }> = defineOp({
  name: 'rms_norm',
  attributes: ['eps'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: (ins) => {
    const [x, w] = [ins[0]!, ins[1]!];
    const [rows, h] = matrixOf(x.shape);
    if (w.shape.length !== 1 || w.shape[0] !== h) throw shapeError('rms_norm', `a weight of ${h}`, [x.shape, w.shape]);
    return [
      { shape: x.shape, dtype: x.dtype },
      { shape: [rows], dtype: 'f32' },
    ];
  },
  reference: ({ ins, outs }, { eps }) => {
    const [x, w] = [ins[0]!.data, ins[1]!.data];
    const [rows, h] = matrixOf(ins[0]!.shape);
    for (let r = 0; r < rows; r++) {
      let sum = 0;
      for (let j = 0; j < h; j++) sum += x[r * h + j]! ** 2;
      const rstd = 1 / Math.sqrt(sum / h + eps);
      outs[1]!.data[r] = rstd;
      for (let j = 0; j < h; j++) outs[0]!.data[r * h + j] = x[r * h + j]! * rstd * w[j]!;
    }
  },
  saves: (ins, outs) => [ins[0]!, outs[1]!],
  backward: (call, dys) => {
    const [x, w] = call.ins as [Tensor, Tensor];
    const [rows, h] = matrixOf(x.shape);
    const trained = w instanceof Parameter && w.trainable;
    const { sums, start } = trained ? call.sums(1, rows) : { sums: call.device.allocate({ shape: [2, h], dtype: 'f32' }, 'workspace'), start: 0 };
    const dx = call.device.run(rmsNormBackwardOp, { ins: [x, w, call.outs[1]!, dys[0]!], inouts: [sums] }, { start })[0]!;
    if (!trained) sums.dispose();
    return [dx, null];
  },
  flops: (ins) => 4 * numel(ins[0]!.shape),
  sample: (random) => {
    const [rows, h] = [random.int(1, 20), random.int(1, 140)];
    return {
      ins: [
        { shape: [rows, h], dtype: 'activation', values: random.normal(rows * h) },
        { shape: [h], dtype: 'real', values: random.normal(h, 0.3, 1) },
      ],
      attributes: { eps: 1e-5 },
    };
  },
});

/** x [..., h] normed over its last dimension and multiplied by w [h]. */
export function rmsNorm(x: Tensor, w: Tensor, eps: number): Tensor {
  const [y] = x.device.apply(rmsNormOp, [x, w], { eps });
  return y!;
}
