// NAME/trajectories.json: runs of many updates; losses, norms, coefficients and weights on the way.
import { Program } from '@lomo/parallel';
import type { Packed } from '../hostBatch.ts';
import { packRows } from '../hostBatch.ts';
import type { TrajectoryEntry } from '../format.ts';
import { batchesFile, readJson, trajectoriesFile } from '../format.ts';
import { compareAll } from '../compare.ts';
import { farthest, pairs } from '../judge.ts';
import { weightsOf } from '../modelRun.ts';
import { measuring } from '../passes.ts';
import type { Row } from '../row.ts';
import { skipped } from '../row.ts';
import { needsL2, optimizerOf } from '../ruleEntry.ts';
import type { Context } from '../section.ts';
import type { GoldenTensor } from '../tensorFile.ts';
import { readTensors, under } from '../tensorFile.ts';
import { forwardDistances, normsOf } from './forward.ts';

interface Trace {
  readonly loss: number[];
  readonly norm: number[];
  readonly coefficient: number[];
  readonly weights: Map<number, ReadonlyMap<string, Float64Array>>;
  readonly finalLoss: number[];
}

/** Rows of `name`/trajectories.json with the model of `model`. */
export async function* trajectories(context: Context, name: string, model: string): AsyncGenerator<Row> {
  const { folder } = context;
  const { steps, runs } = await readJson(folder.path(name, 'trajectories.json'), trajectoriesFile);
  const { train, train_labels: labels } = await readJson(folder.path(name, 'batches.json'), batchesFile);
  if (train === undefined || train.length === 0) {
    yield skipped(`${name}/trajectories`, 'batches.json has no training batches');
    return;
  }
  const packed = packRows(train.map((ids, i) => ({ ids, labels: labels?.[i] ?? ids })));
  const samplesPath = ['weights', 'samples.safetensors'];
  const samples = folder.has(name, ...samplesPath) ? await readTensors(folder.path(name, ...samplesPath)) : null;
  const gradients = (await forwardDistances(folder, name)).gradients;
  for (const [run, entry] of Object.entries(runs)) {
    const at = `${name}/trajectories/${run}`;
    const count = Math.min(steps, context.steps);
    const trace = await follow(context, model, { entry, packed, count, steps });
    yield* numberRows(context, at, { entry, trace, count, steps, gradients: gradients.max_rel });
    yield* weightRows(context, { at, name, run }, { entry, trace, samples });
    if (count < steps) yield skipped(`${at}/updates ${count + 1} to ${steps}`, `${context.engine.name} runs ${count} of ${steps}; --steps ${steps} runs all`);
  }
}

/** Runs `count` updates from the checkpoint, and looks where the file looked. */
async function follow(context: Context, model: string, plan: { readonly entry: TrajectoryEntry; readonly packed: Packed; readonly count: number; readonly steps: number }): Promise<Trace> {
  const { entry, packed, count, steps } = plan;
  const { shape, batches } = packed;
  const looks = new Set([...entry.full, ...entry.sampled]);
  return context.engine.onModel(model, shape.maxLength, async (run) => {
    const trace: Trace = { loss: [], norm: [], coefficient: [], weights: new Map(), finalLoss: [] };
    const optimizer = optimizerOf(entry, run.device, run.model.parameters);
    const program = new Program(run.device, run.model, { ...shape, microBatches: 1 });
    const passes = measuring(run.device, optimizer);
    for (let i = 0; i < (run.rehearsal ? 1 : count); i++) {
      const result = await program.run({ batches: [batches[i % batches.length]!], step: i + 1, seed: 0, lr: entry.lr, passes });
      trace.loss.push(result.loss);
      trace.norm.push(result.gradNorm);
      trace.coefficient.push(result.clipCoefficient);
      if (looks.has(i + 1)) trace.weights.set(i + 1, await weightsOf(run.model));
    }
    if (count === steps) for (const batch of batches) trace.finalLoss.push((await program.evaluate([batch])).loss);
    return trace;
  });
}

interface Numbers {
  readonly entry: TrajectoryEntry;
  readonly trace: Trace;
  readonly count: number;
  readonly steps: number;
  /** Relative distance of float32 gradients at the start. */
  readonly gradients: number;
}

function* numberRows({ judge }: Context, at: string, { entry, trace, count, steps, gradients }: Numbers): Generator<Row> {
  const distances = Object.values(entry.float32_distance);
  const loss = Math.max(...distances.map((d) => d.loss));
  if (entry.loss.length !== steps || entry.grad_norm.length !== steps) throw new Error(`${steps} steps, but ${entry.loss.length} losses and ${entry.grad_norm.length} gradient norms`);
  yield judge.losses(`${at}/losses`, { got: trace.loss, want: entry.loss.slice(0, count) }, loss);
  if (count === steps) yield judge.losses(`${at}/final losses`, { got: trace.finalLoss, want: entry.final_loss }, loss);
  yield judge.series(`${at}/gradient norms`, { got: trace.norm, want: entry.grad_norm.slice(0, count) }, gradients);
  if (entry.clip_coefficient !== null) yield judge.series(`${at}/clip coefficients`, { got: trace.coefficient, want: entry.clip_coefficient.slice(0, count) }, gradients);
}

interface Weights {
  readonly entry: TrajectoryEntry;
  readonly trace: Trace;
  readonly samples: ReadonlyMap<string, GoldenTensor> | null;
}

async function* weightRows({ folder, judge }: Context, place: { readonly at: string; readonly name: string; readonly run: string }, { entry, trace, samples }: Weights): AsyncGenerator<Row> {
  const { at, name, run } = place;
  const l2 = needsL2(entry);
  for (const step of [...entry.full, ...entry.sampled].sort((a, b) => a - b)) {
    const got = trace.weights.get(step);
    if (got === undefined) continue;
    const row = `${at}/weights after ${step}`;
    const distances = Object.values(entry.float32_distance).flatMap((d) => (step in d ? [d[String(step)]!] : []));
    if (distances.length === 0) throw new Error(`float32_distance has nothing for step ${step}`);
    const distance = farthest(distances);
    if (entry.full.includes(step)) {
      const file = `${run}.step${step}.safetensors`;
      if (!folder.has(name, 'weights', file)) yield skipped(row, `weights/${file} is not in the folder`);
      else yield* judge.tensors(row, compareAll(got, await readTensors(folder.path(name, 'weights', file))), { distance, l2 });
    }
    if (entry.sampled.includes(step)) {
      const golden = samples === null ? null : under(samples, `${run}/${step}/`);
      if (golden === null || golden.size === 0) yield skipped(`${row}, sampled`, `weights/samples.safetensors ${golden === null ? 'is not in the folder' : `has no ${run}/${step}/`}`);
      else yield* judge.tensors(`${row}, sampled`, compareAll(got, golden), { distance, l2 });
    }
    const norms = entry.l2[String(step)];
    if (norms !== undefined) yield judge.relative(`${at}/norms after ${step}`, pairs(normsOf(got), norms), distance.max_rel);
  }
}
