// AdamW (arXiv 1711.05101) as torch.optim.AdamW computes it, fused into backward with its full state, for honest comparison.
import type { Op } from '@lomo/tensor';
import { defineOp, erase, numel } from '@lomo/tensor';
import type { Rule } from './rule.ts';
import { checked, hyper, measured, tileOf } from './rule.ts';
import { sampleUpdate } from './sample.ts';
import type { UpdateAttributes } from './update.ts';
import { mayWrite, measureOf, scalar, shapedGradient, updateAttributes, writeRounded } from './update.ts';

export interface AdamWOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
}

type AdamWAttributes = UpdateAttributes & { readonly check: number; readonly beta1: number; readonly beta2: number; readonly eps: number };

/** ins g, scalars; inouts p, m f32, v f32, counters; out, where measured, the rows' sums. */
export const adamwUpdateOp: Op<AdamWAttributes> = defineOp({
  name: 'adamw_update',
  attributes: [...updateAttributes, 'check', 'beta1', 'beta2', 'eps'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: () => [],
  reference: ({ ins, inouts, outs }, attributes) => {
    const [g, scalars] = [ins[0]!, ins[1]!];
    const [p, m, v, counters] = [inouts[0]!, inouts[1]!, inouts[2]!, inouts[3]!];
    if (!mayWrite(g, counters, attributes)) return;
    const { beta1, beta2, eps } = attributes;
    const [lr, t] = [scalars.data[scalar.lr]!, counters.data[0]!];
    for (let i = 0; i < p.data.length; i++) {
      const x = shapedGradient(g.data[i]!, scalars, attributes.clipValue);
      m.data[i] = beta1 * m.data[i]! + (1 - beta1) * x;
      v.data[i] = beta2 * v.data[i]! + (1 - beta2) * x * x;
    }
    const [c1, c2] = [1 - beta1 ** t, 1 - beta2 ** t];
    const value = (i: number): number =>
      p.data[i]! * (1 - lr * attributes.weightDecay) - (lr * (m.data[i]! / c1)) / (Math.sqrt(v.data[i]! / c2) + eps);
    writeRounded(p, counters, { ...attributes, value, measure: measureOf({ g, scalars, sums: outs[0] }) });
  },
  flops: (ins) => 14 * numel(ins[0]!.shape),
  sample: (random) => {
    const s = sampleUpdate(random);
    const old = () => ({ shape: s.shape, dtype: 'f32' as const, values: random.normal(numel(s.shape)).map((x) => x * x) });
    return {
      ins: [s.g, s.scalars],
      inouts: [s.p, old(), old(), s.counters],
      attributes: { ...s.attributes, check: 1, beta1: 0.9, beta2: 0.999, eps: 1e-8 },
    };
  },
});

/** AdamW with the given constants; state m and v, f32, of the parameter's shape. */
export function adamw(options: AdamWOptions = {}): Rule {
  const { beta1 = 0.9, beta2 = 0.999, eps = 1e-8 } = options;
  return {
    name: 'adamw',
    ops: [erase(adamwUpdateOp)],
    measures: true,
    state: (p) => ({ m: { shape: p.shape, dtype: 'f32' }, v: { shape: p.shape, dtype: 'f32' } }),
    update: (p, g, state, context) => {
      const check = checked(g, context);
      g.tiles((tile, range) => {
        const { device, step } = context;
        device.run(
          adamwUpdateOp,
          { ins: [tile, step.scalars], inouts: [tileOf(p, range), tileOf(state['m']!, range), tileOf(state['v']!, range), step.counters], outs: measured(range, context) },
          { ...hyper(p, range, context), check, beta1, beta2, eps },
        );
      });
    },
  };
}
