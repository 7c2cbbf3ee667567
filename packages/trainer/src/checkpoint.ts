// Checkpoints: each is the model as a Hugging Face folder, plus trainer_state.json and the optimizer's state. Written beside, made durable, renamed.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Files } from '@lomo/models';
import { defaultLimits, ensureFolder, loadWeights, nodeFiles, readFully, readWhole, SafetensorsFile, writeModel, writeSafetensors, writeWhole } from '@lomo/models';
import { LomoError } from '@lomo/tensor';
import { checkpointName, partialOf, replacedOf, rotate, tidy } from './checkpoint_folders.ts';
import type { Contents, Training } from './contents.ts';
import { contentsOf, pieces } from './contents.ts';
import type { TrainerState } from './state.ts';
import { parseState, stateBytes, stateName } from './state.ts';

const optimizerName = 'optimizer.safetensors';
/** Bytes of one slice between file and device. */
const slice = 2 ** 24;

export interface SaveOptions {
  /** The folder that config.json, tokenizer and other small files are copied from. */
  readonly from: string;
  readonly files?: Files;
  /** Newest checkpoints kept; the best one is kept beside them. */
  readonly keep: number;
  readonly state: Omit<TrainerState, 'files' | 'sizes'>;
  /** What is written, if not what the device holds now: a snapshot of it. */
  readonly contents?: Contents;
}

/** A checkpoint that is durable. */
export interface SavedCheckpoint {
  readonly path: string;
  /** Of all its files. */
  readonly bytes: number;
  /** Why older checkpoints or leftovers could not be removed; null where they were. The next save tries again. */
  readonly notRemoved: LomoError | null;
}

/**
 * Saves into `<root>/step-N`. When it returns, the checkpoint survives a power loss. Whatever happens before, every checkpoint that was
 * there still is, the one of the same step included; older ones are removed only afterwards.
 */
export async function saveCheckpoint(training: Training, root: string, options: SaveOptions): Promise<SavedCheckpoint> {
  const { files = nodeFiles, from, keep } = options;
  const target = join(root, checkpointName(options.state.step));
  const partial = partialOf(target);
  await ensureFolder(files, root);
  const left = await tidy(root, files);
  if (left !== null) await files.remove(partial);
  await files.makeFolder(partial);
  try {
    const { weights, optimizer } = options.contents ?? contentsOf(training);
    // A model that was itself a checkpoint brings the state of another run.
    const written = (await writeModel(training.model, partial, { from, files, sources: weights })).filter((file) => file.name !== stateName);
    if (optimizer.length > 0) written.push(await writeSafetensors(join(partial, optimizerName), optimizer, { files }));
    const state: TrainerState = {
      ...options.state,
      files: Object.fromEntries(written.map((file) => [file.name, file.sha256])),
      sizes: Object.fromEntries(written.map((file) => [file.name, file.bytes])),
    };
    const manifest = stateBytes(state);
    await writeWhole(files, join(partial, stateName), manifest);
    await files.syncFolder(partial);
    await publish(files, { root, partial, target });
    const notRemoved = await rotate(root, { files, keep, newest: state });
    return { path: target, bytes: written.reduce((n, file) => n + file.bytes, manifest.byteLength), notRemoved: notRemoved ?? left };
  } catch (error) {
    // Best effort, so that a full disk has its room back; what stays is removed by the next save.
    await files.remove(partial).catch(() => {});
    throw error;
  }
}

/** Gives a finished folder its name, durably. An older checkpoint of that name keeps another one until then. */
async function publish(files: Files, { root, partial, target }: { readonly root: string; readonly partial: string; readonly target: string }): Promise<void> {
  const exists = (await files.facts(target)) !== null;
  if (exists) await files.rename(target, replacedOf(target));
  try {
    // Else a power loss could keep the second rename alone, and the older checkpoint would have no name.
    if (exists) await files.syncFolder(root);
    await files.rename(partial, target);
  } catch (error) {
    if (exists) await files.rename(replacedOf(target), target).catch(() => {});
    throw error;
  }
  await files.syncFolder(root);
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
      const parts = pieces(tensor, slice);
      for await (const bytes of file.slices(key, slice)) device.write(parts.next().value!, bytes);
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
