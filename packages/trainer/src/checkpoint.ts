// Checkpoints: each is the model as a Hugging Face folder, plus trainer_state.json and the optimizer's state. Written beside, made durable, renamed.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { LanguageModel } from '@lomo/models';
import { nodeFiles, readFully, readWhole, SafetensorsFile, defaultLimits, writeModel, writeSafetensors, writeWhole, loadWeights } from '@lomo/models';
import type { Files, TensorSource } from '@lomo/models';
import type { Optimizer } from '@lomo/optim';
import type { Device, Tensor } from '@lomo/tensor';
import { LomoError, numel, sizeOf } from '@lomo/tensor';
import type { TrainerState } from './state.ts';
import { parseState, stateName } from './state.ts';

const optimizerName = 'optimizer.safetensors';
const folderPattern = /^step-(\d+)$/;
/** Bytes of one slice between device and file. */
const slice = 2 ** 24;

/** What a checkpoint holds. */
export interface Training {
  readonly device: Device;
  readonly model: LanguageModel;
  readonly optimizer: Optimizer;
}

export interface SaveOptions {
  /** The folder that config.json, tokenizer and other small files are copied from. */
  readonly from: string;
  readonly files?: Files;
  /** Newest checkpoints kept; the best one is kept beside them. */
  readonly keep: number;
  /** Step of the best checkpoint so far, if there is one. */
  readonly best: number | null;
}

/** Name of the checkpoint folder of a step. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`;
}

/**
 * Saves into `<root>/step-N` and returns its path. Whatever happens, a folder of that name is complete and durable or not there; older
 * checkpoints are removed only after it is.
 */
export async function saveCheckpoint(training: Training, root: string, options: SaveOptions & { readonly state: Omit<TrainerState, 'files'> }): Promise<string> {
  const files = options.files ?? nodeFiles;
  const name = checkpointName(options.state.step);
  const partial = join(root, `${name}.partial`);
  const target = join(root, name);
  await files.makeFolder(root);
  await files.remove(partial);
  await files.makeFolder(partial);
  const written = [...(await writeModel(training.model, partial, { from: options.from, files }))].filter((file) => file.name !== stateName);
  const sources = stateSources(training.device, training.optimizer);
  if (sources.length > 0) written.push(await writeSafetensors(join(partial, optimizerName), sources, { files }));
  const state: TrainerState = { ...options.state, files: Object.fromEntries(written.map((file) => [file.name, file.sha256])) };
  await writeWhole(files, join(partial, stateName), new TextEncoder().encode(`${JSON.stringify(state, null, 2)}\n`));
  await files.syncFolder(partial);
  await files.remove(target);
  await files.rename(partial, target);
  await files.syncFolder(root);
  await rotate(root, { files, keep: options.keep, best: options.best, newest: options.state.step });
  return target;
}

/** Checkpoints of a run's folder, newest first. Half-written ones do not count. */
export async function listCheckpoints(root: string, files: Files = nodeFiles): Promise<readonly { readonly step: number; readonly path: string }[]> {
  if ((await files.facts(root)) === null) return [];
  return (await files.list(root))
    .flatMap((name) => {
      const step = folderPattern.exec(name)?.[1];
      return step === undefined ? [] : [{ step: Number(step), path: join(root, name) }];
    })
    .toSorted((a, b) => b.step - a.step);
}

/** The state of a checkpoint folder. Throws CorruptState. */
export async function readState(folder: string, files: Files = nodeFiles): Promise<TrainerState> {
  const path = join(folder, stateName);
  return parseState(new TextDecoder().decode(await readWhole(files, path, 2 ** 26)), path);
}

/** Loads weights and optimizer state after checking every byte against the state's SHA-256. Throws CorruptFile naming the file. */
export async function restoreCheckpoint(training: Training, folder: string, files: Files = nodeFiles): Promise<TrainerState> {
  const state = await readState(folder, files);
  for (const [name, expected] of Object.entries(state.files)) {
    const found = await sha256(files, join(folder, name));
    if (found !== expected) {
      throw new LomoError('CorruptFile', `${join(folder, name)}: SHA-256 is ${found}, trainer_state.json says ${expected}; resume from another checkpoint`, { path: join(folder, name) });
    }
  }
  await loadWeights(training.model, folder, { files });
  await restoreOptimizer(training, join(folder, optimizerName), files);
  return state;
}

/** Checkpoints beyond `newest` were left by another run: they are not this one's to remove, and do not make its own older. */
async function rotate(root: string, options: { readonly files: Files; readonly keep: number; readonly best: number | null; readonly newest: number }): Promise<void> {
  const all = (await listCheckpoints(root, options.files)).filter(({ step }) => step <= options.newest);
  for (const { step, path } of all.slice(options.keep)) if (step !== options.best) await options.files.remove(path);
  for (const name of await options.files.list(root)) if (name.endsWith('.partial')) await options.files.remove(join(root, name));
}

function stateSources(device: Device, optimizer: Optimizer): TensorSource[] {
  return [...optimizer.state()].map(({ path, name, tensor }) => ({
    name: `${path}.${name}`,
    shape: tensor.shape,
    dtype: 'F32' as const,
    async *slices() {
      for (const part of parts(tensor)) {
        const values = await device.read(part);
        yield new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      }
    },
  }));
}

/** A tensor as flat pieces of at most `slice` bytes, in order. */
function* parts(tensor: Tensor): Generator<Tensor> {
  const flat = tensor.reshape([numel(tensor.shape)]);
  const count = slice / sizeOf(tensor.dtype);
  for (let at = 0; at < flat.shape[0]!; at += count) yield flat.rows(at, Math.min(flat.shape[0]!, at + count));
}

async function restoreOptimizer({ device, optimizer }: Training, path: string, files: Files): Promise<void> {
  const tensors = [...optimizer.state()];
  if (tensors.length === 0) return;
  if ((await files.facts(path)) === null) {
    throw new LomoError('MissingState', `${path} is missing: the run was saved by another optimizer than ${optimizer.rule.name}; give that one, or start a new run`, { path });
  }
  const file = await SafetensorsFile.open(path, { files, limits: defaultLimits });
  try {
    for (const { path: parameter, name, tensor } of tensors) {
      const key = `${parameter}.${name}`;
      const entry = file.entries.get(key);
      if (entry === undefined || entry.shape.join() !== tensor.shape.join()) {
        throw new LomoError('MissingState', `${path}: no ${key} of [${tensor.shape.join(', ')}]; the run was saved by another optimizer than ${optimizer.rule.name}`, { path });
      }
      const pieces = parts(tensor);
      for await (const bytes of file.slices(key, slice)) device.write(pieces.next().value as Tensor, bytes);
    }
  } finally {
    await file.close();
  }
}

async function sha256(files: Files, path: string): Promise<string> {
  const file = await files.open(path, 'read');
  const hash = createHash('sha256');
  const buffer = new Uint8Array(2 ** 20);
  try {
    for (let at = 0; ; ) {
      const read = await readFully(file, buffer, at);
      hash.update(buffer.subarray(0, read));
      at += read;
      if (read < buffer.byteLength) return hash.digest('hex');
    }
  } finally {
    await file.close();
  }
}
