// Checkpoints: each is the model as a Hugging Face folder, plus trainer_state.json and the optimizer's state. Written beside, made durable, renamed.
import { join } from 'node:path';
import type { Files } from '@lomo/models';
import { ensureFolder, nodeFiles, writeModel, writeSafetensors, writeWhole } from '@lomo/models';
import { LomoError } from '@lomo/tensor';
import { checkpointName, partialOf, replacedOf, rotate, tidy } from './checkpoint_folders.ts';
import type { Contents, Training } from './contents.ts';
import { contentsOf, finite } from './contents.ts';
import { optimizerName } from './restore.ts';
import type { TrainerState } from './state.ts';
import { stateBytes, stateName } from './state.ts';

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
 * there still is, the one of the same step included; older ones are removed only afterwards. Throws FileError with path and errno, and
 * NonFiniteWeight.
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
    const written = (await writeModel(training.model, partial, { from, files, sources: weights.map(finite) })).filter((file) => file.name !== stateName);
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
