// Multiplication by a number that is static for the plan.
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** c = factor a. */
export const scaleOp: Op<{ readonly factor: number }> = defineOp({
  name: 'scale',
  attributes: ['factor'],
  dtypes: ['f32', 'bf16'],
  infer: (ins) => [{ shape: ins[0]!.shape, dtype: ins[0]!.dtype }],
  reference: ({ ins, outs }, { factor }) => {
    const [a, c] = [ins[0]!.data, outs[0]!.data];
    for (let i = 0; i < c.length; i++) c[i] = factor * a[i]!;
  },
  saves: () => [],
  backward: (call, dys) => [call.device.run(scaleOp, { ins: [dys[0]!] }, call.attributes)[0]!],
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 9), random.int(1, 70)];
    return { ins: [{ shape, dtype: 'real', values: random.normal(numel(shape)) }], attributes: { factor: random.pick([2, -0.3, 12.5]) } };
  },
});

/** factor a. */
export function scale(a: Tensor, factor: number): Tensor {
  return a.device.apply(scaleOp, [a], { factor })[0]!;
}
