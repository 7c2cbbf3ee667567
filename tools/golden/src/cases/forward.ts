// NAME/forward.json: logits, losses and gradients of one batch, with all labels and with masked ones.
import { Comparison, compareAll, normOf } from '../compare.ts';
import type { FileDistance } from '../format.ts';
import { batchesFile, forwardEntry, forwardFile, parsed, readJson } from '../format.ts';
import { lossesByRow, packRows } from '../hostBatch.ts';
import type { GoldenFolder } from '../folder.ts';
import { farthest, measured, pairs } from '../judge.ts';
import type { Gradients } from '../modelRun.ts';
import { forwardOf, gradientsOf } from '../modelRun.ts';
import type { Row } from '../row.ts';
import { exact, skipped } from '../row.ts';
import type { Context } from '../section.ts';
import type { GoldenTensor } from '../tensorFile.ts';
import { readTensors } from '../tensorFile.ts';

/** The distances in forward.json of `name` that later cases need, where the file is there. */
export async function forwardDistances(folder: GoldenFolder, name: string): Promise<{ readonly logits: FileDistance; readonly gradients: FileDistance }> {
  if (!folder.has(name, 'forward.json')) return measured;
  const path = folder.path(name, 'forward.json');
  const file = await readJson(path, forwardFile);
  const entries = labellings(file).map((label) => parsed(`${path}: ${label}`, file[label], forwardEntry));
  const gradients = entries.flatMap((entry) => Object.values(entry.float32_distance).map((d) => d.gradients));
  return { logits: logitsDistance(file.logits_distance), gradients: gradients.length > 0 ? farthest(gradients) : measured.gradients };
}

function labellings(file: Readonly<Record<string, unknown>>): readonly string[] {
  return Object.keys(file).filter((key) => key !== 'logits_distance');
}

/** The float32 runs among the distances of the logits. */
function logitsDistance(distances: Readonly<Record<string, FileDistance>> | undefined): FileDistance {
  const float32 = Object.entries(distances ?? {}).filter(([kind]) => kind.startsWith('float32')).map(([, d]) => d);
  return float32.length > 0 ? farthest(float32) : measured.logits;
}

/** Rows of `name`/forward.json with the model of `model`. */
export async function* forward(context: Context, name: string, model: string): AsyncGenerator<Row> {
  const { folder, engine, judge } = context;
  const path = folder.path(name, 'forward.json');
  const file = await readJson(path, forwardFile);
  const batches = await readJson(folder.path(name, 'batches.json'), batchesFile);
  const ids = batches.forward;
  if (ids === undefined) {
    yield skipped(`${name}/forward`, 'batches.json has no forward batch');
    return;
  }
  const ofLogits = logitsDistance(file.logits_distance);
  const full = packRows([{ ids, labels: ids }]);
  const { logits } = await engine.onModel(model, full.shape.maxLength, (run) => forwardOf(run, full.shape, full.batches[0]!));
  if (!folder.has(name, 'logits.safetensors')) yield skipped(`${name}/forward/logits`, 'logits.safetensors is not in the folder');
  else {
    const comparison = new Comparison();
    for (const [tensor, { values }] of await readTensors(folder.path(name, 'logits.safetensors'))) comparison.add(tensor, { got: logits, want: values });
    yield* judge.tensors(`${name}/forward/logits`, comparison, { distance: ofLogits });
  }
  for (const label of labellings(file)) {
    const entry = parsed(`${path}: ${label}`, file[label], forwardEntry);
    const labels = label === 'full' ? ids : parsed(`batches.json: forward_${label}_labels`, batches[`forward_${label}_labels`], batchesFile.shape.forward.unwrap());
    const at = `${name}/forward/${label}`;
    const distances = Object.values(entry.float32_distance);
    const lossDistance = Math.max(...distances.map((d) => d.loss));
    const gradientDistance = farthest(distances.map((d) => d.gradients));
    const packed = packRows([{ ids, labels }]);
    const { evaluated, chunks, tiles } = await engine.onModel(model, packed.shape.maxLength, async (run) => ({
      evaluated: await forwardOf(run, packed.shape, packed.batches[0]!),
      chunks: await gradientsOf(run, packed, { headForm: 'chunks' }),
      tiles: await gradientsOf(run, packed, { headForm: 'tiles' }),
    }));
    yield exact(`${at}/trained tokens`, 1, chunks.trained === entry.trained_tokens ? [] : [`${chunks.trained} here, ${entry.trained_tokens} in the file`]);
    yield judge.losses(`${at}/loss`, { got: [evaluated.loss], want: [entry.loss] }, lossDistance);
    yield judge.losses(`${at}/loss while training`, { got: [chunks.loss], want: [entry.loss] }, lossDistance);
    // A token's loss is a logit against their logsumexp: it moves as far as logits do.
    const want = entry.token_losses.flat();
    yield judge.losses(`${at}/token losses`, { got: lossesByRow(evaluated.tokenLosses, ids).flat(), want }, ofLogits.max_abs);
    const tensors = label === 'full' ? 'gradients.safetensors' : `${label}_gradients.safetensors`;
    if (!folder.has(name, tensors)) yield skipped(`${at}/gradients`, `${tensors} is not in the folder`);
    else {
      const golden = await readTensors(folder.path(name, tensors));
      yield* gradientRows(context, `${at}/gradients`, { got: chunks, want: golden, distance: gradientDistance });
      yield* gradientRows(context, `${at}/gradients, head by vocabulary tiles`, { got: tiles, want: golden, distance: gradientDistance });
    }
    yield judge.relative(`${at}/gradient norm`, [{ name: 'global', got: chunks.norm, want: entry.grad_norm }], gradientDistance.max_rel);
    yield judge.relative(`${at}/gradient norms`, pairs(normsOf(chunks.byPath), entry.grad_l2), gradientDistance.max_rel);
  }
}

/** L2 norm of every tensor. */
export function normsOf(tensors: ReadonlyMap<string, Float64Array>): ReadonlyMap<string, number> {
  return new Map([...tensors].map(([path, values]) => [path, normOf(values)]));
}

interface GradientPair {
  readonly got: Gradients;
  readonly want: ReadonlyMap<string, GoldenTensor>;
  readonly distance: FileDistance;
}

/** Gradients against whole or sampled golden ones; a skipped row when there are none. */
export function* gradientRows({ judge }: Context, at: string, { got, want, distance }: GradientPair): Generator<Row> {
  if (want.size === 0) yield skipped(at, 'the file has no gradients');
  else yield* judge.tensors(at, compareAll(got.byPath, want), { distance });
}
