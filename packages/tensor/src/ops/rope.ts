// Rotary position embedding by positions and an inverse-frequency tensor, so that every scaling is data.
import { shapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { dimOf, numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

export type RopeAttributes = {
  /** Factor on the rotated part (yarn's attention factor); 1 for most. */
  readonly scale: number;
  /** 1 rotates back. */
  readonly inverse: number;
};

/** Rotates pairs (j, j + r) of each head; elements from 2r on pass through. */
export const ropeOp: Op<RopeAttributes> = defineOp({
  name: 'rope',
  attributes: ['scale', 'inverse'],
  dtypes: ['f32', 'bf16'],
  infer: (ins) => {
    const [x, positions, frequencies] = [ins[0]!, ins[1]!, ins[2]!];
    if (x.shape.length !== 3 || positions.shape[0] !== x.shape[0] || 2 * dimOf(frequencies, 0) > dimOf(x, 2)) {
      throw shapeError('rope', 'x [T, H, d], positions [T], inverse frequencies [r] with 2r <= d', [x.shape, positions.shape, frequencies.shape]);
    }
    return [{ shape: x.shape, dtype: x.dtype }];
  },
  reference: ({ ins, outs }, { scale, inverse }) => {
    const [x, positions, frequencies] = [ins[0]!, ins[1]!, ins[2]!];
    const [tokens, heads, d] = x.shape as [number, number, number];
    const r = dimOf(frequencies, 0);
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const at = (t * heads + h) * d;
        for (let j = 2 * r; j < d; j++) outs[0]!.data[at + j] = x.data[at + j]!;
        for (let j = 0; j < r; j++) {
          const angle = positions.data[t]! * frequencies.data[j]! * (inverse ? -1 : 1);
          const [cos, sin] = [Math.cos(angle) * scale, Math.sin(angle) * scale];
          const [a, b] = [x.data[at + j]!, x.data[at + j + r]!];
          outs[0]!.data[at + j] = a * cos - b * sin;
          outs[0]!.data[at + j + r] = b * cos + a * sin;
        }
      }
    }
  },
  saves: (ins) => [ins[1]!, ins[2]!],
  backward: (call, dys) => {
    const { scale, inverse } = call.attributes;
    return [call.device.run(ropeOp, { ins: [dys[0]!, call.ins[1]!, call.ins[2]!] }, { scale, inverse: inverse ? 0 : 1 })[0]!, null, null];
  },
  flops: (ins) => 3 * numel(ins[0]!.shape),
  sample: (random) => {
    const [tokens, heads, r, rest] = [random.int(1, 30), random.int(1, 4), random.int(1, 33), random.pick([0, 0, 3])];
    const d = 2 * r + rest;
    return {
      ins: [
        { shape: [tokens, heads, d], dtype: 'real', values: random.normal(tokens * heads * d) },
        { shape: [tokens], dtype: 'i32', values: random.ints(tokens, 5000) },
        { shape: [r], dtype: 'f32', values: Float64Array.from({ length: r }, (_, j) => Math.fround(10000 ** (-j / r))) },
      ],
      attributes: { scale: random.pick([1, 1.2]), inverse: random.int(0, 1) },
    };
  },
});

/** x [T, H, d] rotated by positions i32 [T] and inverse frequencies f32 [r]. */
export function rope(x: Tensor, positions: Tensor, options: { readonly inverseFrequencies: Tensor; readonly scale?: number }): Tensor {
  return x.device.apply(ropeOp, [x, positions, options.inverseFrequencies], { scale: options.scale ?? 1, inverse: 0 })[0]!;
}
