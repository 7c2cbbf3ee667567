// A golden folder of this test's own, with counts, names, runs and a family that the shared one does not have. Its values are our own
// float64 ones: it shows that the checker takes everything from the files, not that the numbers are right.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Device } from '@lomo/tensor';
import { createModel, initialise, writeModel, writeSafetensors } from '@lomo/models';
import type { JsonObject } from '@lomo/models';
import { Program } from '@lomo/parallel';
import { openEngine, referenceBackend } from '../src/engine.ts';
import type { Engine, ModelRun } from '../src/engine.ts';
import { normOf, sampleOf } from '../src/compare.ts';
import type { RuleEntry } from '../src/format.ts';
import { lossesByRow, packRows } from '../src/hostBatch.ts';
import { forwardOf, gradientsOf, weightsOf } from '../src/modelRun.ts';
import { measuring } from '../src/passes.ts';
import { optimizerOf } from '../src/ruleEntry.ts';

const config: JsonObject = {
  model_type: 'qwen3', vocab_size: 31, hidden_size: 12, intermediate_size: 20, num_hidden_layers: 3, num_attention_heads: 3, num_key_value_heads: 1, head_dim: 8,
  max_position_embeddings: 64, rms_norm_eps: 1e-6, rope_theta: 10000, tie_word_embeddings: false, hidden_act: 'silu', eos_token_id: 2, bos_token_id: 1,
};
const distance = { max_abs: 1e-6, max_rel: 1e-6, worst: null, rel_l2: 1e-6 };
// Where |g| is near eps, one weight of AdamW moves by a share of the rate.
const adamwDistance = { ...distance, max_rel: 4e-5 };
const steps = 5;
const runs: Readonly<Record<string, RuleEntry & { readonly full: number[]; readonly sampled: number[] }>> = {
  mine: { rule: 'adalomo', lr: 1e-2, weight_decay: 0.2, eps2: 2e-3, decays: 'matrices', clip_value: null, clip_norm: null, full: [2], sampled: [5] },
  tight: { rule: 'adamw', lr: 1e-3, beta1: 0.8, beta2: 0.95, eps: 1e-6, decays: 'none', clip_value: 0.05, clip_norm: 0.5, full: [], sampled: [3, 4] },
};

type Values = ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: ArrayLike<number> }>;

/** Rows of ids, a function of `seed`. */
function rowsOf(count: number, length: number, seed: number): number[][] {
  return Array.from({ length: count }, (_, r) => Array.from({ length }, (_, i) => 3 + ((seed * 7 + r * 11 + i * i * 5 + i) % 28)));
}

/** Writes `parent`/golden with models/wide and run/, and the run's model into `parent`/models/run. Returns the golden folder. */
export async function makeFolder(parent: string): Promise<string> {
  await using engine = await openEngine('reference');
  const golden = join(parent, 'golden');
  await makeModel(join(golden, 'models', 'wide'), 5);
  await makeModel(join(parent, 'models', 'run'), 6);
  await makeFamily(engine, join(golden, 'models', 'wide'));
  await mkdir(join(golden, 'run', 'weights'), { recursive: true });
  await makeRun(engine, join(golden, 'run'), join(parent, 'models', 'run'));
  return golden;
}

async function makeModel(folder: string, seed: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  const device = new Device(referenceBackend(), { bytes: 2 ** 20 });
  using model = createModel(config, device);
  initialise(model, seed);
  await writeModel(model, folder);
}

async function makeFamily(engine: Engine, folder: string): Promise<void> {
  const ids = rowsOf(3, 11, 1);
  const packed = packRows([{ ids, labels: ids }]);
  const { forward, gradients, shapes } = await engine.onModel(folder, 11, async (run) => ({
    forward: await forwardOf(run, packed.shape, packed.batches[0]!),
    gradients: await gradientsOf(run, packed),
    shapes: shapesOf(run),
  }));
  const tensors: Values = new Map([
    ['logits', { shape: [3, 11, 31], values: forward.logits }],
    ...[...gradients.byPath].map(([path, values]) => [`grad.${path}`, { shape: shapes.get(path)!, values }] as const),
  ]);
  await writeTensors(join(folder, 'golden.safetensors'), tensors);
  const distances = { logits: distance, loss: 1e-7, gradients: distance };
  await writeJson(join(folder, 'golden.json'), { ids, loss: forward.loss, token_losses: lossesByRow(forward.tokenLosses, ids), tied: false, float32_distance: distances });
}

async function makeRun(engine: Engine, folder: string, model: string): Promise<void> {
  const train = [0, 1, 2].map((seed) => rowsOf(2, 9 + (seed === 1 ? 1 : 0), seed));
  const labels = train.map((rows, i) => rows.map((row) => row.map((id, t) => (t < i * 2 ? -100 : id))));
  await writeJson(join(folder, 'batches.json'), { train, train_labels: labels });
  const packed = packRows(train.map((ids, i) => ({ ids, labels: labels[i]! })));
  const samples = new Map<string, { shape: readonly number[]; values: ArrayLike<number> }>();
  const entries: Record<string, unknown> = {};
  for (const [name, entry] of Object.entries(runs)) {
    const { full, sampled } = entry;
    const story = await engine.onModel(model, packed.shape.maxLength, async (run) => {
      const passes = measuring(run.device, optimizerOf(entry, run.device, run.model.parameters));
      const program = new Program(run.device, run.model, { ...packed.shape, microBatches: 1 });
      const results = [];
      const weights = new Map<number, ReadonlyMap<string, Float64Array>>();
      for (let i = 0; i < steps; i++) {
        results.push(await program.run({ batches: [packed.batches[i % 3]!], step: i + 1, seed: 0, lr: entry.lr, passes }));
        weights.set(i + 1, await weightsOf(run.model));
      }
      const final = [];
      for (const batch of packed.batches) final.push((await program.evaluate([batch])).loss);
      return { results, weights, final, shapes: shapesOf(run) };
    });
    const l2 = sampled.map((step) => [step, Object.fromEntries([...story.weights.get(step)!].map(([path, values]) => [path, normOf(values)]))]);
    entries[name] = {
      ...entry, loss: story.results.map((r) => r.loss), final_loss: story.final, grad_norm: story.results.map((r) => r.gradNorm),
      clip_coefficient: entry.clip_norm === null ? null : story.results.map((r) => r.clipCoefficient), l2: Object.fromEntries(l2) as unknown,
      float32_distance: { eager: { loss: 1e-6, ...Object.fromEntries([...full, ...sampled].map((step) => [step, entry.rule === 'adamw' ? adamwDistance : distance])) } },
    };
    for (const step of full) {
      await writeTensors(join(folder, 'weights', `${name}.step${step}.safetensors`), new Map([...story.weights.get(step)!].map(([path, values]) => [path, { shape: story.shapes.get(path)!, values }])));
    }
    for (const step of sampled) {
      for (const [path, values] of story.weights.get(step)!) {
        const sample = sampleOf(values, Math.min(17, values.length));
        samples.set(`${name}/${step}/${path}`, { shape: [sample.length], values: sample });
      }
    }
  }
  await writeTensors(join(folder, 'weights', 'samples.safetensors'), samples);
  await writeJson(join(folder, 'trajectories.json'), { steps, runs: entries });
}

function shapesOf({ model }: ModelRun): ReadonlyMap<string, readonly number[]> {
  return new Map(model.parameters.map((p) => [p.path, p.shape]));
}

async function writeTensors(path: string, tensors: Values): Promise<void> {
  await writeSafetensors(path, [...tensors].map(([name, { shape, values }]) => ({ name, dtype: 'F32' as const, shape, slices: () => [new Uint8Array(Float32Array.from(values).buffer)] })));
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFile(path, JSON.stringify(value));
}
