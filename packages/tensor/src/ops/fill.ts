// A constant in every element.
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** x = value. */
export const fillOp: Op<{ readonly value: number }> = defineOp({
  name: 'fill',
  attributes: ['value'],
  dtypes: ['f32', 'bf16', 'f16', 'i32'],
  infer: () => [],
  reference: ({ inouts }, { value }) => {
    inouts[0]!.data.fill(value);
  },
  flops: () => 0,
  sample: (random) => {
    const shape = [random.int(1, 300)];
    return { ins: [], inouts: [{ shape, dtype: 'real', values: random.normal(numel(shape)) }], attributes: { value: random.pick([0, 1, -3]) } };
  },
});

/** Sets every element of `x`. */
export function fill(x: Tensor, value: number): void {
  x.device.run(fillOp, { inouts: [x] }, { value });
}
