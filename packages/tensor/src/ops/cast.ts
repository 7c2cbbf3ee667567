// Change of element type, rounding to nearest even.
import type { DType } from '../dtype.ts';
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** The target dtype is the output's, given through `outs`; without one the op makes f32. */
export const castOp: Op<Record<never, number>> = defineOp({
  name: 'cast',
  attributes: [],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: (ins) => [{ shape: ins[0]!.shape, dtype: 'f32' }],
  reference: ({ ins, outs }) => {
    const [a, c] = [ins[0]!.data, outs[0]!.data];
    for (let i = 0; i < c.length; i++) c[i] = a[i]!;
  },
  saves: () => [],
  backward: (call, dys) => [castTo(dys[0]!, call.device.allocate({ shape: dys[0]!.shape, dtype: call.ins[0]!.dtype }, call.device.category))],
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 9), random.int(1, 70)];
    return { ins: [{ shape, dtype: 'real', values: random.normal(numel(shape), 10 ** random.int(-6, 3)) }], outs: [random.pick(['f32', 'bf16', 'f16'])], attributes: {} };
  },
});

function castTo(from: Tensor, to: Tensor): Tensor {
  return from.device.run(castOp, { ins: [from], outs: [to] }, {})[0]!;
}

/** `a` as `dtype`, recorded; the caller owns the result. */
export function cast(a: Tensor, dtype: DType): Tensor {
  const out = castTo(a, a.device.allocate({ shape: a.shape, dtype }, a.device.category));
  a.device.recorder?.record({ op: castOp, ins: [a], outs: [out], attributes: {} });
  return out;
}
