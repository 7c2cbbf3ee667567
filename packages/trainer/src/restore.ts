// Checkpoints read back: every byte is hashed on its way in and compared with the manifest, and nothing is used that the manifest does not list.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Files, LanguageModel, OpenFile, Sums } from '@lomo/models';
import { closing, ConfinedFolder, isWeights, loadWeights, nodeFiles, readFully, SafetensorsFile, wrongSum } from '@lomo/models';
import { isLomoError, LomoError } from '@lomo/tensor';
import type { Training } from './contents.ts';
import { pieces } from './contents.ts';
import type { TrainerState } from './state.ts';
import { parseState, stateLimit, stateName } from './state.ts';

/** The optimizer's state in a checkpoint. */
export const optimizerName = 'optimizer.safetensors';
/** Bytes of one slice between file and device. */
const slice = 2 ** 21;

/** The state of a checkpoint folder. Throws CorruptState. */
export async function readState(folder: string, files: Files = nodeFiles): Promise<TrainerState> {
  return parseState(await stateText(folder, files), join(folder, stateName));
}

/**
 * What the manifest of a checkpoint says of its files; undefined for a folder that is a plain model. trainer_state.json of another program
 * (Hugging Face's trainer writes one) or of an older format says nothing of files. Throws CorruptState where it should and is damaged.
 */
export async function sumsOf(folder: string, files: Files = nodeFiles): Promise<Sums | undefined> {
  const path = join(folder, stateName);
  if ((await files.facts(path)) === null) return undefined;
  const text = await stateText(folder, files);
  if (isForeign(text)) return undefined;
  return new Map(Object.entries(parseState(text, path).files));
}

/** Loads weights, optimizer state and what else the manifest lists, each byte read once and hashed. Throws CorruptFile naming the file; the weights then hold nothing to be used. */
export async function restoreCheckpoint(training: Training, folder: string, files: Files = nodeFiles): Promise<TrainerState> {
  const state = await readState(folder, files);
  const sums: Sums = new Map(Object.entries(state.files));
  const inside = await ConfinedFolder.open(folder, { files, sums });
  await checkPresent(inside, state);
  const hasState = !training.optimizer.state()[Symbol.iterator]().next().done;
  await checkFiles(inside, [...sums.keys()].filter((name) => !isWeights(name) || (name === optimizerName && !hasState)));
  await loadWeights(training.model, folder, { files, sums });
  if (hasState) await restoreOptimizer(training, inside);
  return state;
}

/** Loads the weights of a model's folder; where that is a checkpoint, every file of it is compared with the manifest. Throws what `loadWeights` throws, and CorruptFile. */
export async function loadChecked(model: LanguageModel, folder: string, options: { readonly files?: Files } = {}): Promise<void> {
  const { files = nodeFiles } = options;
  const sums = await sumsOf(folder, files);
  if (sums === undefined) return loadWeights(model, folder, { files });
  const inside = await ConfinedFolder.open(folder, { files, sums });
  // The optimizer's state is not used here, and may be twice the model.
  await checkFiles(inside, [...sums.keys()].filter((name) => !isWeights(name)));
  await loadWeights(model, folder, { files, sums });
}

/** Cheap, and the first thing that is wrong with a copy that was cut short. */
async function checkPresent(inside: ConfinedFolder, { sizes, files }: TrainerState): Promise<void> {
  for (const name of Object.keys(files)) {
    const path = join(inside.path, name);
    const found = (await inside.files.facts(path))?.size;
    const expected = sizes[name];
    if (found === expected) continue;
    const what = found === undefined ? 'is missing' : `has ${found} bytes, the checkpoint's manifest says ${expected ?? 'nothing of it'}`;
    throw new LomoError('CorruptFile', `${path} ${what}; resume from another checkpoint`, { path, found, expected });
  }
}

async function checkFiles(inside: ConfinedFolder, names: readonly string[]): Promise<void> {
  const buffer = new Uint8Array(slice);
  for (const name of names) {
    const expected = inside.expected(name)!;
    await closing(await inside.open(name), async (file) => {
      const found = await sha256(file, buffer);
      if (found !== expected) throw wrongSum(join(inside.path, name), { expected, found });
    });
  }
}

async function restoreOptimizer({ device, optimizer }: Training, inside: ConfinedFolder): Promise<void> {
  const path = join(inside.path, optimizerName);
  const wrong = (what: string): LomoError => new LomoError('MissingState', `${path} ${what}: the run was saved by another optimizer than ${optimizer.rule.name}; give that one, or start a new run`, { path });
  if (!(await inside.has(optimizerName))) throw wrong('is missing');
  const sha256 = inside.expected(optimizerName)!;
  await closing(await SafetensorsFile.of(await inside.open(optimizerName), { sha256 }), (file) => restoreState({ device, optimizer }, { file, wrong }));
}

/** Each byte is read once; that all were right is known when this returns. */
async function restoreState({ device, optimizer }: Omit<Training, 'model'>, { file, wrong }: { readonly file: SafetensorsFile; readonly wrong: (what: string) => LomoError }): Promise<void> {
  const wanted = new Map([...optimizer.state()].map(({ path: parameter, name, tensor }) => [`${parameter}.${name}`, tensor]));
  for (const [key, { shape }] of wanted) {
    const entry = file.entries.get(key);
    if (entry === undefined || entry.dtype !== 'F32' || entry.shape.join() !== shape.join()) throw wrong(`has no ${key} of [${shape.join(', ')}]`);
  }
  const room = new Uint8Array(slice);
  let parts: ReturnType<typeof pieces> | null = null;
  for await (const { entry, at, bytes } of file.walk(room, (name) => wanted.has(name))) {
    if (at === 0 || parts === null) parts = pieces(wanted.get(entry.name)!, slice);
    device.write(parts.next().value!, bytes);
  }
}

async function stateText(folder: string, files: Files): Promise<string> {
  const inside = await ConfinedFolder.open(folder, { files });
  try {
    // A byte order mark is a byte that the state did not have.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await inside.read(stateName, stateLimit));
  } catch (error) {
    const path = join(folder, stateName);
    if (isLomoError(error) && !isLomoError(error, 'TooLarge')) throw error;
    throw new LomoError('CorruptState', `${path}: ${error instanceof TypeError ? 'not valid UTF-8' : error instanceof Error ? error.message : String(error)}; resume from another checkpoint`, { path }, error);
  }
}

/** True for an object that is no state of ours and shows no sign of having been one. */
function isForeign(text: string): boolean {
  if (/"sha256"|"fingerprint"/.test(text)) return /"format": 1\b/.test(text);
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && 'global_step' in value;
  } catch {
    return false;
  }
}

async function sha256(file: OpenFile, buffer: Uint8Array): Promise<string> {
  const hash = createHash('sha256');
  for (let at = 0; ; ) {
    const read = await readFully(file, buffer, at);
    hash.update(buffer.subarray(0, read));
    at += read;
    if (read < buffer.byteLength) return hash.digest('hex');
  }
}
