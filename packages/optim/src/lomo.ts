// LOMO (arXiv 2306.09782): p = p (1 - lr wd) - lr g, on settle, tile by tile, without state.
import type { Op } from '@lomo/tensor';
import { defineOp, erase, numel } from '@lomo/tensor';
import type { Rule } from './rule.ts';
import { checked, hyper, measured, tileOf } from './rule.ts';
import { sampleUpdate } from './sample.ts';
import type { UpdateAttributes } from './update.ts';
import { mayWrite, measureOf, scalar, shapedGradient, updateAttributes, writeRounded } from './update.ts';

/** ins g f32 [rows, k], scalars; inouts p [rows, k], counters; out, where measured, the rows' sums. `check` 1: a non-finite g closes the gate before anything is written. */
export const lomoUpdateOp: Op<UpdateAttributes & { readonly check: number }> = defineOp({
  name: 'lomo_update',
  attributes: [...updateAttributes, 'check'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: () => [],
  reference: ({ ins, inouts, outs }, attributes) => {
    const [g, scalars] = [ins[0]!, ins[1]!];
    const [p, counters] = [inouts[0]!, inouts[1]!];
    if (!mayWrite(g, counters, attributes)) return;
    const lr = scalars.data[scalar.lr]!;
    const keep = 1 - lr * attributes.weightDecay;
    const value = (i: number): number => p.data[i]! * keep - lr * shapedGradient(g.data[i]!, scalars, attributes.clipValue);
    writeRounded(p, counters, { ...attributes, value, measure: measureOf({ g, scalars, sums: outs[0] }) });
  },
  flops: (ins) => 5 * numel(ins[0]!.shape),
  sample: (random) => {
    const s = sampleUpdate(random);
    return { ins: [s.g, s.scalars], inouts: [s.p, s.counters], attributes: { ...s.attributes, check: random.int(0, 1) } };
  },
});

/** The rule of the paper, and plain SGD: the two are the same formula. */
export const lomo: Rule = {
  name: 'lomo',
  ops: [erase(lomoUpdateOp)],
  measures: true,
  state: () => ({}),
  update: (p, g, _, context) => {
    const check = checked(g, context);
    g.tiles((tile, range) => {
      const { device, step } = context;
      device.run(
        lomoUpdateOp,
        { ins: [tile, step.scalars], inouts: [tileOf(p, range), step.counters], outs: measured(range, context) },
        { ...hyper(p, range, context), check },
      );
    });
  },
};
