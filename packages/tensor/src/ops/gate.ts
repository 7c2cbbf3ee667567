// The gate: non-finite losses and gradients close it on the device, and closed it stops every update from writing.
import type { Op, View } from '../op.ts';
import { defineOp } from '../op.ts';
import { numel } from '../shape.ts';
import type { StepTensor } from '../step.ts';
import { lossIndex } from '../step.ts';
import type { Tensor } from '../tensor.ts';

type Index = { readonly index: number };

/** Closes the gate in counters [8] and notes who did, unless it is closed already. */
export function closeGate(counters: View, index: number): void {
  if (counters.data[3] !== 0) return;
  counters.data[3] = 1;
  counters.data[4] = index;
}

const finite = (values: View['data']): boolean => values.every((v) => Number.isFinite(v));
const counters = (gate: number) => ({ shape: [8], dtype: 'i32' as const, values: [3, 1, 2, gate, gate === 1 ? 9 : 0, 0, 0, 0] });

/** Closes the gate when the loss sums f32 [2, 1] are not finite. */
export const gateLossOp: Op<Index> = defineOp({
  name: 'gate_loss',
  attributes: ['index'],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }, { index }) => {
    if (!Number.isFinite(ins[0]!.data[0]! + ins[0]!.data[1]!)) closeGate(inouts[0]!, index);
  },
  flops: () => 1,
  sample: (random) => ({
    ins: [{ shape: [2, 1], dtype: 'f32', values: [random.pick([1, NaN, Infinity, -Infinity]), random.pick([2, NaN, Infinity])] }],
    inouts: [counters(random.int(0, 1))],
    attributes: { index: -1 },
  }),
});

/** Closes the gate when any element of g f32 is not finite. */
export const gateCheckOp: Op<Index> = defineOp({
  name: 'gate_check',
  attributes: ['index'],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }, { index }) => {
    if (!finite(ins[0]!.data)) closeGate(inouts[0]!, index);
  },
  flops: (ins) => numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 9), random.int(1, 70)];
    const values = random.normal(numel(shape));
    const bad = random.pick([0, NaN, Infinity]);
    if (bad !== 0) values[random.int(0, values.length - 1)] = bad;
    return { ins: [{ shape, dtype: 'f32', values }], inouts: [counters(random.int(0, 1))], attributes: { index: random.int(0, 5) } };
  },
});

/** Closes the gate if the step's loss so far is not finite. */
export function gateLoss(step: StepTensor): void {
  step.loss.device.run(gateLossOp, { ins: [step.loss], inouts: [step.counters] }, { index: lossIndex });
}

/** Closes the gate if `g` is not finite; `index` is what the step's outcome will name. */
export function gateCheck(g: Tensor, step: StepTensor, index: number): void {
  g.device.run(gateCheckOp, { ins: [g], inouts: [step.counters] }, { index });
}
