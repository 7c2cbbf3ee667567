// NAME/accumulation.json: several micro-batches as one step, in both ways of adding them up.
import { Program } from '@lomo/parallel';
import type { FileDistance, RuleEntry } from '../format.ts';
import { accumulationFile, batchesFile, readJson, trajectoriesFile } from '../format.ts';
import { compareAll } from '../compare.ts';
import type { GoldenFolder } from '../folder.ts';
import type { Packed } from '../hostBatch.ts';
import { packRows } from '../hostBatch.ts';
import { farthest, measured, pairs } from '../judge.ts';
import { gradientsOf, weightsOf } from '../modelRun.ts';
import { measuring } from '../passes.ts';
import type { Row } from '../row.ts';
import { exact, skipped } from '../row.ts';
import { needsL2, optimizerOf } from '../ruleEntry.ts';
import type { Context } from '../section.ts';
import type { GoldenTensor } from '../tensorFile.ts';
import { readTensors, under } from '../tensorFile.ts';
import { gradientRows, normsOf } from './forward.ts';

/** Micro-batches as kept factors with the head by vocabulary tiles, and added into an f32 buffer with the head by token chunks. */
const forms = [
  { accumulate: 'factors', headForm: 'tiles' },
  { accumulate: 'buffer', headForm: 'chunks' },
] as const;
type Form = (typeof forms)[number];

interface Accumulated {
  readonly at: string;
  readonly model: string;
  readonly packed: Packed;
  readonly golden: ReadonlyMap<string, GoldenTensor> | null;
}

/** Rows of `name`/accumulation.json with the model of `model`. */
export async function* accumulation(context: Context, name: string, model: string): AsyncGenerator<Row> {
  const { folder } = context;
  const file = await readJson(folder.path(name, 'accumulation.json'), accumulationFile);
  const { train, accumulation_labels: labels } = await readJson(folder.path(name, 'batches.json'), batchesFile);
  const values = folder.has(name, 'accumulation.safetensors') ? await readTensors(folder.path(name, 'accumulation.safetensors')) : null;
  for (const [label, entry] of Object.entries(file)) {
    const at = `${name}/accumulation/${label}`;
    const micro = labels?.[label];
    if (train === undefined || micro === undefined) {
      yield skipped(at, 'batches.json has no micro-batches for it');
      continue;
    }
    const packed = packRows(micro.map((rows, m) => ({ ids: train[m] ?? [], labels: rows })));
    const golden = values === null ? null : under(values, `${label}/`);
    const one = { at, model, packed, golden };
    for (const form of forms) yield* gradients(context, one, { entry, form });
    for (const [run, after] of Object.entries(entry.after_one_step)) {
      const distance = await afterOneStep(folder, name, { run, entry: after });
      for (const form of forms) yield* oneStep(context, one, { run, after, form, distance, gradients: entry.float32_distance });
    }
  }
}

type Entry = (ReturnType<typeof accumulationFile.parse>)[string];

async function* gradients(context: Context, one: Accumulated, { entry, form }: { readonly entry: Entry; readonly form: Form }): AsyncGenerator<Row> {
  const { judge, engine } = context;
  const { model, packed, golden } = one;
  const at = `${one.at}/${form.accumulate}`;
  const distance = entry.float32_distance;
  const got = await engine.onModel(model, packed.shape.maxLength, (run) => gradientsOf(run, packed, form));
  const counts = packed.batches.map((batch) => batch.targets.filter((t) => t >= 0).length);
  yield exact(`${at}/trained tokens`, counts.length, counts.join() === entry.trained_tokens.join() ? [] : [`${counts.join(', ')} here, ${entry.trained_tokens.join(', ')} in the file`]);
  yield judge.losses(`${at}/loss`, { got: [got.loss], want: [entry.loss] }, measured.loss);
  if (golden === null) yield skipped(`${at}/gradients`, 'accumulation.safetensors is not in the folder');
  else yield* gradientRows(context, `${at}/gradients`, { got, want: under(golden, 'grad/'), distance });
  yield judge.relative(`${at}/gradient norm`, [{ name: 'global', got: got.norm, want: entry.grad_norm }], distance.max_rel);
  yield judge.relative(`${at}/gradient norms`, pairs(normsOf(got.byPath), entry.grad_l2), distance.max_rel);
}

interface OneStep {
  readonly run: string;
  readonly after: Entry['after_one_step'][string];
  readonly form: Form;
  readonly distance: FileDistance;
  readonly gradients: FileDistance;
}

async function* oneStep({ engine, judge }: Context, one: Accumulated, step: OneStep): AsyncGenerator<Row> {
  const { model, packed, golden } = one;
  const { run, after, form, distance } = step;
  const at = `${one.at}/${form.accumulate}/${run}`;
  const { shape, batches } = packed;
  const { weights, coefficient } = await engine.onModel(model, shape.maxLength, async ({ device, model: loaded }) => {
    const optimizer = optimizerOf(after, device, loaded.parameters);
    const program = new Program(device, loaded, { ...shape, ...form, microBatches: batches.length });
    const result = await program.run({ batches, step: 1, seed: 0, lr: after.lr, passes: measuring(device, optimizer) });
    return { weights: await weightsOf(loaded), coefficient: result.clipCoefficient };
  });
  yield judge.relative(`${at}/clip coefficient`, [{ name: run, got: coefficient, want: after.clip_coefficient }], step.gradients.max_rel);
  if (golden === null) yield skipped(`${at}/weights`, 'accumulation.safetensors is not in the folder');
  else yield* judge.tensors(`${at}/weights`, compareAll(weights, under(golden, `${run}/`)), { distance, l2: needsL2(after) });
  yield judge.relative(`${at}/norms`, pairs(normsOf(weights), after.l2), distance.max_rel);
}

/** How far float32 weights land after one step: from the trajectory of the same name where there is one. */
async function afterOneStep(folder: GoldenFolder, name: string, { run, entry }: { readonly run: string; readonly entry: RuleEntry }): Promise<FileDistance> {
  const path = folder.path(name, 'trajectories.json');
  if (folder.has(name, 'trajectories.json')) {
    const same = (await readJson(path, trajectoriesFile)).runs[run];
    const distances = Object.values(same?.float32_distance ?? {}).flatMap((d) => ('1' in d ? [d['1']!] : []));
    if (distances.length > 0) return farthest(distances);
  }
  return needsL2(entry) ? measured.adamwWeights : measured.weightsAfterOneStep;
}
