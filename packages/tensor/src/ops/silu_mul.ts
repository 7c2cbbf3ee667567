// The gated activation of LLaMA's feed-forward layer: silu(gate) up.
import { shapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { numel, sameShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

type None = Record<never, number>;
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** dgate and dup from gate, up and dy. */
export const siluMulBackwardOp: Op<None> = defineOp({
  name: 'silu_mul_backward',
  attributes: [],
  dtypes: ['f32', 'bf16'],
  infer: (ins) => [ins[0]!, ins[1]!].map((s) => ({ shape: s.shape, dtype: s.dtype })),
  reference: ({ ins, outs }) => {
    const [gate, up, dy] = [ins[0]!.data, ins[1]!.data, ins[2]!.data];
    for (let i = 0; i < gate.length; i++) {
      const s = sigmoid(gate[i]!);
      outs[0]!.data[i] = dy[i]! * up[i]! * s * (1 + gate[i]! * (1 - s));
      outs[1]!.data[i] = dy[i]! * gate[i]! * s;
    }
  },
  flops: (ins) => 12 * numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 9), random.int(1, 70)];
    const real = () => ({ shape, dtype: 'real' as const, values: random.normal(numel(shape), 2) });
    return { ins: [real(), real(), real()], attributes: {} };
  },
});

/** y = gate sigmoid(gate) up. */
export const siluMulOp: Op<None> = defineOp({
  name: 'silu_mul',
  attributes: [],
  dtypes: ['f32', 'bf16'],
  infer: (ins) => {
    if (!sameShape(ins[0]!.shape, ins[1]!.shape)) throw shapeError('silu_mul', 'equal shapes', [ins[0]!.shape, ins[1]!.shape]);
    return [{ shape: ins[0]!.shape, dtype: ins[0]!.dtype }];
  },
  reference: ({ ins, outs }) => {
    const [gate, up, y] = [ins[0]!.data, ins[1]!.data, outs[0]!.data];
    for (let i = 0; i < y.length; i++) y[i] = gate[i]! * sigmoid(gate[i]!) * up[i]!;
  },
  saves: (ins) => ins,
  backward: (call, dys) => call.device.run(siluMulBackwardOp, { ins: [call.ins[0]!, call.ins[1]!, dys[0]!] }, {}),
  flops: (ins) => 6 * numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 9), random.int(1, 70)];
    const real = () => ({ shape, dtype: 'real' as const, values: random.normal(numel(shape), 2) });
    return { ins: [real(), real()], attributes: {} };
  },
});

/** silu(gate) up, elementwise. */
export function siluMul(gate: Tensor, up: Tensor): Tensor {
  return gate.device.apply(siluMulOp, [gate, up], {})[0]!;
}
