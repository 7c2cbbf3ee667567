// Elementwise sums: add makes a new tensor, add_into adds in place.
import { shapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { numel, sameShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

type None = Record<never, number>;

/** c = a + b, equal shapes. */
export const addOp: Op<None> = defineOp({
  name: 'add',
  attributes: [],
  dtypes: ['f32', 'bf16'],
  infer: (ins) => {
    const [a, b] = [ins[0]!, ins[1]!];
    if (!sameShape(a.shape, b.shape)) throw shapeError('add', 'equal shapes', [a.shape, b.shape]);
    return [{ shape: a.shape, dtype: a.dtype }];
  },
  reference: ({ ins, outs }) => {
    const [a, b, c] = [ins[0]!.data, ins[1]!.data, outs[0]!.data];
    for (let i = 0; i < c.length; i++) c[i] = a[i]! + b[i]!;
  },
  saves: () => [],
  backward: (_, dys, needs) => [needs[0] === true ? dys[0]! : null, needs[1] === true ? dys[0]! : null],
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 9), random.int(1, 70)];
    const real = () => ({ shape, dtype: 'real' as const, values: random.normal(numel(shape)) });
    return { ins: [real(), real()], attributes: {} };
  },
});

/** a += b. `b` may be f32 or a's dtype. */
export const addIntoOp: Op<None> = defineOp({
  name: 'add_into',
  attributes: [],
  dtypes: ['f32', 'bf16'],
  infer: (ins, _, inouts) => {
    if (!sameShape(ins[0]!.shape, inouts[0]!.shape)) throw shapeError('add_into', 'equal shapes', [inouts[0]!.shape, ins[0]!.shape]);
    return [];
  },
  reference: ({ ins, inouts }) => {
    const [b, a] = [ins[0]!.data, inouts[0]!.data];
    for (let i = 0; i < a.length; i++) a[i]! += b[i]!;
  },
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 9), random.int(1, 70)];
    const real = () => ({ shape, dtype: 'real' as const, values: random.normal(numel(shape)) });
    return { ins: [{ ...real(), dtype: random.pick(['real', 'f32']) }], inouts: [real()], attributes: {} };
  },
});

/** a + b. */
export function add(a: Tensor, b: Tensor): Tensor {
  return a.device.apply(addOp, [a, b], {})[0]!;
}

/** a += b, not recorded: for gradients and accumulators. */
export function addInto(a: Tensor, b: Tensor): void {
  a.device.run(addIntoOp, { ins: [b], inouts: [a] }, {});
}
