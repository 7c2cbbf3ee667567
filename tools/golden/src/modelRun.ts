// What cases read off a model: losses and logits of every position, weights, gradients.
import { LomoError } from '@lomo/tensor';
import type { Batch, HeadForm, Tensor } from '@lomo/tensor';
import { HeadStage } from '@lomo/models';
import type { LanguageModel } from '@lomo/models';
import { Program } from '@lomo/parallel';
import type { BatchShape, HostBatch } from '@lomo/parallel';
import type { ModelRun } from './engine.ts';
import { Collect } from './passes.ts';

/** Weights by checkpoint name. */
export async function weightsOf(model: LanguageModel): Promise<ReadonlyMap<string, Float64Array>> {
  const weights = new Map<string, Float64Array>();
  for (const p of model.parameters) weights.set(p.path, await model.device.readNumbers(p));
  return weights;
}

/** A forward pass without a tape. */
export interface Forward {
  /** Mean over the trained tokens. */
  readonly loss: number;
  /** By position. */
  readonly tokenLosses: Float64Array;
  /** Flat [tokens, vocabulary]. */
  readonly logits: Float64Array;
}

/** Losses and logits of one batch: the forward pass of evaluation, and the head that generation uses. */
export async function forwardOf({ device, model }: ModelRun, shape: BatchShape, batch: HostBatch): Promise<Forward> {
  const head = model.stages.at(-1);
  if (!(head instanceof HeadStage)) throw new LomoError('StageError', `the last stage of ${model.config.modelType} has no logits`);
  const program = new Program(device, model, { ...shape, microBatches: 1 });
  const { loss } = await program.evaluate([batch]);
  const tokenLosses = await program.tokenLosses(0);
  const place: Batch = program.batch(0);
  let x: Tensor | null = null;
  const run = (make: () => Tensor): Tensor =>
    device.under({ category: 'workspace', recorder: null }, () =>
      device.own(() => {
        const result = make();
        return { result, keep: [result] };
      }),
    );
  for (const stage of model.stages.slice(0, -1)) {
    const before: Tensor | null = x;
    x = run(() => stage.forward(place, before)!);
    before?.dispose();
  }
  const arrived = x!;
  using logits = run(() => head.logits(arrived));
  arrived.dispose();
  return { loss, tokenLosses, logits: await device.readNumbers(logits) };
}

/** One backward pass over micro-batches, nothing updated. */
export interface Gradients {
  readonly loss: number;
  readonly trained: number;
  readonly norm: number;
  readonly byPath: ReadonlyMap<string, Float64Array>;
  /** Per micro-batch, by position. */
  readonly tokenLosses: readonly Float64Array[];
}

/** d loss / d parameter over `batches`, in the given form of the head and of accumulation. */
export async function gradientsOf(
  { device, model }: ModelRun,
  packed: { readonly shape: BatchShape; readonly batches: readonly HostBatch[] },
  form: { readonly headForm?: HeadForm; readonly accumulate?: 'factors' | 'buffer' } = {},
): Promise<Gradients> {
  const { shape, batches } = packed;
  const program = new Program(device, model, { ...shape, ...form, microBatches: batches.length });
  const collect = new Collect(device);
  const { loss, trained, gradNorm } = await program.run({ batches, step: 1, seed: 0, lr: 0, passes: [collect] });
  const tokenLosses: Float64Array[] = [];
  for (let m = 0; m < batches.length; m++) tokenLosses.push(await program.tokenLosses(m));
  return { loss, trained, norm: gradNorm, byPath: await collect.take(), tokenLosses };
}
