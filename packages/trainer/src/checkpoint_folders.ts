// The folders of a run's checkpoints: which are complete, which one is the newest, what a crash left behind, which are old enough to go.
//
// step-N is complete and was durable before it had that name. step-N.partial is garbage. step-N.replaced is the older checkpoint of a step
// that is being saved again: it counts where step-N is not there.
import { basename, join } from 'node:path';
import type { Files } from '@lomo/models';
import { nodeFiles, readWhole } from '@lomo/models';
import type { LomoError } from '@lomo/tensor';
import { isLomoError } from '@lomo/tensor';
import type { TrainerState } from './state.ts';
import { parseState, stateLimit, stateName } from './state.ts';

const checkpointPattern = /^step-\d+(\.replaced)?$/;
const replacedPattern = /^step-\d+\.replaced$/;
const partialPattern = /^step-\d+\.partial$/;

/** Name of the checkpoint folder of a step. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`;
}

/** Where a checkpoint is written before it is complete, and goes to before it is removed. */
export function partialOf(folder: string): string {
  return `${folder}.partial`;
}

/** Where a checkpoint waits while another one of its step takes its name. */
export function replacedOf(folder: string): string {
  return `${folder}.replaced`;
}

/** A checkpoint whose manifest is whole and whose files have their sizes. `step` is the manifest's. */
export interface FoundCheckpoint {
  readonly step: number;
  readonly path: string;
  readonly state: TrainerState;
}

/** A folder named like a checkpoint that is none. */
export interface DamagedCheckpoint {
  readonly path: string;
  readonly reason: string;
}

/** Complete checkpoints of a run's folder, newest first, and damaged ones. Changes nothing. */
export async function surveyCheckpoints(root: string, files: Files = nodeFiles): Promise<{ readonly complete: readonly FoundCheckpoint[]; readonly damaged: readonly DamagedCheckpoint[] }> {
  if ((await files.facts(root)) === null) return { complete: [], damaged: [] };
  const names = (await files.list(root)).filter((name) => checkpointPattern.test(name));
  const complete: FoundCheckpoint[] = [];
  const damaged: DamagedCheckpoint[] = [];
  for (const name of names) {
    if (replacedPattern.test(name) && names.includes(withoutSuffix(name))) continue;
    const path = join(root, name);
    const found = await inspect(path, files);
    if (typeof found === 'string') damaged.push({ path, reason: found });
    else complete.push({ step: found.step, path, state: found });
  }
  return { complete: complete.toSorted((a, b) => b.step - a.step), damaged };
}

/** Complete checkpoints of a run's folder, newest first. */
export async function listCheckpoints(root: string, files: Files = nodeFiles): Promise<readonly FoundCheckpoint[]> {
  return (await surveyCheckpoints(root, files)).complete;
}

/** The manifest, or what is missing in the folder. */
async function inspect(folder: string, files: Files): Promise<TrainerState | string> {
  const path = join(folder, stateName);
  if ((await files.facts(path))?.kind !== 'file') return `${stateName} is missing`;
  let state: TrainerState;
  try {
    state = parseState(new TextDecoder().decode(await readWhole(files, path, stateLimit)), path);
  } catch (error) {
    if (isLomoError(error, 'CorruptState') || isLomoError(error, 'TooLarge')) return error.message;
    throw error;
  }
  for (const [name, size] of Object.entries(state.sizes)) {
    const found = (await files.facts(join(folder, name)))?.size;
    if (found !== size) return `${name} ${found === undefined ? 'is missing' : `has ${found} bytes, the manifest says ${size}`}`;
  }
  return state;
}

/**
 * Finishes what a crash interrupted: a checkpoint whose successor never got its name has its own back, half-written and half-removed
 * folders go. Returns why something of the latter could not be removed.
 */
export async function tidy(root: string, files: Files = nodeFiles): Promise<LomoError | null> {
  if ((await files.facts(root)) === null) return null;
  const names = await files.list(root);
  const partial = names.filter((name) => partialPattern.test(name));
  const replaced = names.filter((name) => replacedPattern.test(name));
  if (partial.length + replaced.length === 0) return null;
  const isDone = (name: string): boolean => names.includes(withoutSuffix(name));
  for (const name of replaced) if (!isDone(name)) await files.rename(join(root, name), join(root, withoutSuffix(name)));
  // One that was killed may have given the names that are seen here, and a power loss may yet take them back: nothing goes before they stay.
  await files.syncFolder(root);
  return removeAll([...partial, ...replaced.filter(isDone)].map((name) => join(root, name)), files);
}

export interface RotateOptions {
  readonly files: Files;
  /** At least 1 counts. */
  readonly keep: number;
  /** The checkpoint that is durable now. */
  readonly newest: TrainerState;
}

/**
 * Removes all of this run's checkpoints but the `keep` newest, by the steps in their manifests, and the one with the lowest held-out loss.
 * Those of other settings or data, and those beyond `newest`, belong to other runs and stay. Returns why one could not be removed.
 */
export async function rotate(root: string, { files, keep, newest }: RotateOptions): Promise<LomoError | null> {
  try {
    const own = (await listCheckpoints(root, files)).filter(({ step, state }) => step <= newest.step && state.fingerprint === newest.fingerprint);
    const best = own.filter(({ state }) => state.evalLoss !== null).toSorted((a, b) => a.state.evalLoss! - b.state.evalLoss! || a.step - b.step)[0];
    const old = own.slice(Math.max(1, keep)).filter((checkpoint) => checkpoint !== best);
    for (const { path } of old) await files.rename(path, partialOf(path));
    // Only then may a crash find them half removed.
    if (old.length > 0) await files.syncFolder(root);
    const replaced = replacedOf(join(root, checkpointName(newest.step)));
    return await removeAll([...old.map(({ path }) => partialOf(path)), ...((await files.facts(replaced)) === null ? [] : [replaced])], files);
  } catch (error) {
    if (isLomoError(error)) return error;
    throw error;
  }
}

async function removeAll(folders: readonly string[], files: Files): Promise<LomoError | null> {
  let first: LomoError | null = null;
  for (const folder of folders) {
    try {
      await files.remove(folder);
    } catch (error) {
      if (!isLomoError(error)) throw error;
      first ??= error;
    }
  }
  return first;
}

function withoutSuffix(name: string): string {
  return basename(name).replace(/\.[a-z]+$/, '');
}
