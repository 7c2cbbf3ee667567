// Gradient clipping under fusion: by value, by each parameter's own norm, or by the global norm in a pass of its own.
import type { Device, Grad, Op, StepTensor } from '@lomo/tensor';
import { closeGate, defineOp, fill, matrixOf, normAdd, sumSquares } from '@lomo/tensor';
import { scalar } from './update.ts';

/** What is clipped. `value` may be combined with a norm; norms are of the gradients before clamping. */
export interface Clip {
  readonly value?: number;
  readonly norm?: number;
  /** Whose norm. 'global' costs a second backward pass. Default 'global'. */
  readonly scope?: 'global' | 'parameter';
}

/** ins total f32 [2]; inouts scalars, counters: coefficient = min(1, max / (norm + 1e-6)); a non-finite total closes the gate. */
export const clipCoefficientOp: Op<{ readonly maxNorm: number; readonly index: number }> = defineOp({
  name: 'clip_coefficient',
  attributes: ['maxNorm', 'index'],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }, { maxNorm, index }) => {
    const total = ins[0]!.data[0]! + ins[0]!.data[1]!;
    const [scalars, counters] = [inouts[0]!, inouts[1]!];
    if (!Number.isFinite(total)) {
      closeGate(counters, index);
      return;
    }
    scalars.data[scalar.coefficient] = Math.min(1, maxNorm / (Math.sqrt(total) / scalars.data[scalar.lossScale]! + 1e-6));
  },
  flops: () => 5,
  sample: (random) => ({
    ins: [{ shape: [2], dtype: 'f32', values: [random.pick([1e-6, 4, 1e9, Infinity]), 0] }],
    inouts: [
      { shape: [8], dtype: 'f32', values: [0.1, 0.1, 1, random.pick([1, 64]), 0, 0, 0, 0] },
      { shape: [8], dtype: 'i32', values: [1, 2, 3, 0, 0, 0, 0, 0] },
    ],
    attributes: { maxNorm: 1, index: 7 },
  }),
});

/** Adds |g|^2 to the step's squared norm, rows first: the bits do not depend on tiles. */
export function addSquaredNorm(device: Device, g: Grad, total: StepTensor['norm']): void {
  using rows = device.allocate({ shape: [matrixOf(g.shape)[0]], dtype: 'f32' }, 'workspace');
  g.tiles((tile, { from, to }) => sumSquares(tile, rows.rows(from, to)));
  normAdd(total, rows);
}

/** Sets the step's clip coefficient from its squared norm. */
export function setCoefficient(step: StepTensor, options: { readonly maxNorm: number; readonly index: number }): void {
  step.norm.device.run(clipCoefficientOp, { ins: [step.norm], inouts: [step.scalars, step.counters] }, options);
}

/** Clips by this parameter's own norm: what the next update multiplies by. */
export function clipByOwnNorm(device: Device, g: Grad, options: { readonly step: StepTensor; readonly maxNorm: number; readonly index: number }): void {
  const { step, maxNorm, index } = options;
  fill(step.norm, 0);
  addSquaredNorm(device, g, step.norm);
  setCoefficient(step, { maxNorm, index });
}
