// Elementwise product.
import { shapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { numel, sameShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** c = a b, equal shapes. */
export const mulOp: Op<Record<never, number>> = defineOp({
  name: 'mul',
  attributes: [],
  dtypes: ['f32', 'bf16'],
  infer: (ins) => {
    const [a, b] = [ins[0]!, ins[1]!];
    if (!sameShape(a.shape, b.shape)) throw shapeError('mul', 'equal shapes', [a.shape, b.shape]);
    return [{ shape: a.shape, dtype: a.dtype }];
  },
  reference: ({ ins, outs }) => {
    const [a, b, c] = [ins[0]!.data, ins[1]!.data, outs[0]!.data];
    for (let i = 0; i < c.length; i++) c[i] = a[i]! * b[i]!;
  },
  saves: (ins) => ins,
  backward: (call, dys, needs) => {
    const product = (other: Tensor) => call.device.run(mulOp, { ins: [dys[0]!, other] }, {})[0]!;
    return [needs[0] === true ? product(call.ins[1]!) : null, needs[1] === true ? product(call.ins[0]!) : null];
  },
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 9), random.int(1, 70)];
    const real = () => ({ shape, dtype: 'real' as const, values: random.normal(numel(shape)) });
    return { ins: [real(), real()], attributes: {} };
  },
});

/** a b. */
export function mul(a: Tensor, b: Tensor): Tensor {
  return a.device.apply(mulOp, [a, b], {})[0]!;
}
