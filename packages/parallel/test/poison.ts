// An op that passes activations on and, in one micro-batch, turns the gradient (or the activation) into what no number should be.
import type { Batch, Op, Parameter, Stage as AnyStage, Tensor } from '@lomo/tensor';
import { defineOp, erase, linearCrossEntropy, rmsNorm, Stage } from '@lomo/tensor';

type Poison = { readonly value: number; readonly sick: number };

const pass = (name: string, { ruins, backward }: { readonly ruins: boolean; readonly backward?: Op<Poison> }): Op<Poison> =>
  defineOp<Poison>({
    name,
    attributes: ['value', 'sick'],
    dtypes: ['f32', 'bf16'],
    infer: (ins) => [{ shape: ins[0]!.shape, dtype: ins[0]!.dtype }],
    reference: ({ ins, outs }, { value, sick }) => {
      outs[0]!.data.set(ins[0]!.data);
      // One element, in the middle: checks that look at ends, or at first tiles, would miss it.
      if (ruins && sick === 1) outs[0]!.data[outs[0]!.data.length >> 1] = value;
    },
    ...(backward === undefined ? {} : { backward: (call, [dy]) => [call.device.run(backward, { ins: [dy!] }, call.attributes)[0]!] }),
    flops: () => 0,
    sample: (random) => ({ ins: [{ shape: [2, 3], dtype: 'real', values: random.normal(6) }], attributes: { value: 0, sick: 0 } }),
  });

const ruinGradientOp = pass('ruin_gradient', { ruins: true });
const wellOp = pass('well', { ruins: false, backward: ruinGradientOp });
const ruinActivationOp = pass('ruin_activation', { ruins: true, backward: ruinGradientOp });

export const poisonOps = [ruinGradientOp, wellOp, ruinActivationOp].map((op) => erase(op));

/** Where a poison is put, what it is, and whether it is in the way now. */
export interface Site {
  /** 'loss': the activations after the first block; else the gradient that enters this stage ('head': the one that enters its norm). */
  readonly at: string;
  readonly value: number;
  sick: boolean;
}

/** `stages` with the poison in place; it acts on all micro-batches but the first. */
export function poisoned(stages: readonly AnyStage[], site: Site): AnyStage[] {
  const through = (x: Tensor, batch: Batch): Tensor => {
    const attributes = { value: site.value, sick: site.sick && batch.start > 0 ? 1 : 0 };
    return x.device.apply(site.at === 'loss' ? ruinActivationOp : wellOp, [x], attributes)[0]!;
  };
  return stages.map((stage) => {
    if (stage.name === 'head' && site.at === 'head') return new PoisonedHead(stage as AnyStage & { norm: Parameter; weight: Parameter }, through);
    if (stage.name !== (site.at === 'loss' ? 'block 0' : site.at)) return stage;
    const forward = stage.forward.bind(stage);
    stage.forward = (batch, arriving) => through(forward(batch, arriving)!, batch);
    return stage;
  });
}

class PoisonedHead extends Stage {
  readonly name = 'head';
  readonly norm: Parameter;
  readonly weight: Parameter;
  private readonly through: (x: Tensor, batch: Batch) => Tensor;

  constructor({ norm, weight }: { readonly norm: Parameter; readonly weight: Parameter }, through: (x: Tensor, batch: Batch) => Tensor) {
    super();
    this.norm = norm;
    this.weight = weight;
    this.through = through;
  }

  forward(batch: Batch, x: Tensor): null {
    const { step, tokenLoss, start, headForm: form, targets } = batch;
    linearCrossEntropy(this.through(rmsNorm(x, this.norm, 1e-5), batch), this.weight, { targets, step, tokenLoss, start, form });
    return null;
  }
}
