// A Hugging Face folder's weights: one safetensors file or the shards an index names. No file outside the model's folder is opened.
import { basename, dirname, join, sep } from 'node:path';
import { LomoError } from '@lomo/tensor';
import type { Files } from './files.ts';
import { nodeFiles, readWhole } from './files.ts';
import { isJsonObject, parseJson } from './json.ts';
import type { SafetensorsLimits, TensorEntry } from './safetensors/header.ts';
import { corrupt, defaultLimits } from './safetensors/header.ts';
import { SafetensorsFile } from './safetensors/read.ts';

export const singleName = 'model.safetensors';
export const indexName = 'model.safetensors.index.json';

export interface OpenCheckpointOptions {
  readonly files?: Files;
  readonly limits?: SafetensorsLimits;
}

/** A tensor of a checkpoint and the file it lies in. */
export interface CheckpointTensor extends TensorEntry {
  readonly file: SafetensorsFile;
}

/** Every tensor of a folder, open for reading. */
export class Checkpoint implements AsyncDisposable {
  readonly folder: string;
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** Names of the files that hold weights, the index included. */
  readonly fileNames: readonly string[];
  private readonly open: readonly SafetensorsFile[];

  constructor(folder: string, open: readonly SafetensorsFile[], fileNames: readonly string[]) {
    this.folder = folder;
    this.open = open;
    this.fileNames = fileNames;
    this.tensors = new Map(open.flatMap((file) => [...file.entries].map(([name, entry]) => [name, { ...entry, file }] as const)));
  }

  /** Throws LomoError 'NoSuchTensor'. */
  tensor(name: string): CheckpointTensor {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw new LomoError('NoSuchTensor', `${this.folder}: no tensor ${JSON.stringify(name)}`, { folder: this.folder, tensor: name });
    return tensor;
  }

  async close(): Promise<void> {
    for (const file of this.open) await file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Opens the weights in `folder`: `model.safetensors`, or the shards of `model.safetensors.index.json`. Links may lead to other files of
 * the folder, and from a snapshot of a Hugging Face cache to the `blobs` beside it; anything else is LomoError 'OutsideFolder'.
 */
export async function openCheckpoint(folder: string, options: OpenCheckpointOptions = {}): Promise<Checkpoint> {
  const files = options.files ?? nodeFiles;
  const limits = options.limits ?? defaultLimits;
  const isInside = await confinement(files, folder);
  const open: SafetensorsFile[] = [];
  const openOne = async (name: string): Promise<SafetensorsFile> => {
    const path = join(folder, name);
    await isInside(path);
    const file = await SafetensorsFile.open(path, { files, limits });
    open.push(file);
    return file;
  };
  try {
    if ((await files.facts(join(folder, singleName))) !== null) {
      await openOne(singleName);
      return new Checkpoint(folder, open, [singleName]);
    }
    const indexPath = join(folder, indexName);
    if ((await files.facts(indexPath)) === null) throw await noWeights(files, folder);
    await isInside(indexPath);
    const byShard = await readIndex(files, indexPath, limits);
    for (const [name, tensors] of byShard) {
      if ((await files.facts(join(folder, name))) === null) {
        throw new LomoError('MissingShard', `${indexPath} names ${name}, which is not there; fetch it again`, { path: join(folder, name) });
      }
      checkShard(await openOne(name), tensors, indexPath);
    }
    return new Checkpoint(folder, open, [...byShard.keys(), indexName]);
  } catch (error) {
    for (const file of open) await file.close();
    throw error;
  }
}

/** A check that a path, links resolved, stays inside `folder` (or its cache's blobs) and is a regular file. */
export async function confinement(files: Files, folder: string): Promise<(path: string) => Promise<void>> {
  const facts = await files.facts(folder);
  if (facts?.kind !== 'folder') throw new LomoError('NotAFolder', `${folder} is not a folder; expected a Hugging Face model folder`, { path: folder });
  const root = await files.resolve(folder);
  const roots = [root];
  // The hub's cache: models--org--name/snapshots/REVISION links to models--org--name/blobs, the same model's folder.
  if (basename(dirname(root)) === 'snapshots') {
    const blobs = join(dirname(dirname(root)), 'blobs');
    if ((await files.facts(blobs))?.kind === 'folder' && (await files.resolve(blobs)) === blobs) roots.push(blobs);
  }
  return async (path) => {
    const real = await files.resolve(path);
    if (!roots.some((r) => real.startsWith(r.endsWith(sep) ? r : r + sep))) {
      throw new LomoError('OutsideFolder', `${path} leads to ${real}, outside the model's folder; copy the file into the folder`, { path, real });
    }
    if ((await files.facts(real))?.kind !== 'file') throw new LomoError('NotAFile', `${path} is not a regular file`, { path });
  };
}

async function readIndex(files: Files, path: string, limits: SafetensorsLimits): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const root = parseJson(await readWhole(files, path, limits.headerBytes), path, { depth: 8, values: limits.tensors * 2 });
  const map = isJsonObject(root) ? root['weight_map'] : undefined;
  if (!isJsonObject(map)) throw corrupt(path, "no 'weight_map' object");
  const byShard = new Map<string, Set<string>>();
  for (const [tensor, name] of Object.entries(map)) {
    if (typeof name !== 'string') throw corrupt(path, 'a shard is not a string', { tensor, expected: 'a file name', found: JSON.stringify(name).slice(0, 80) });
    if (!/^[^/\\:\0]+\.safetensors$/.test(name) || name.startsWith('.')) {
      throw new LomoError('OutsideFolder', `${path}: tensor ${JSON.stringify(tensor)} is mapped to ${JSON.stringify(name.slice(0, 200))}; only a plain *.safetensors name in the same folder is opened`, { path, tensor, name });
    }
    const known = byShard.get(name);
    if (known === undefined) byShard.set(name, new Set([tensor]));
    else known.add(tensor);
  }
  if (byShard.size === 0) throw corrupt(path, "'weight_map' is empty");
  return byShard;
}

function checkShard(file: SafetensorsFile, expected: ReadonlySet<string>, index: string): void {
  for (const tensor of expected) {
    if (!file.entries.has(tensor)) throw corrupt(file.path, 'not the shard the index describes', { tensor, expected: `the tensor, by ${index}`, found: `${file.entries.size} others` });
  }
  for (const tensor of file.entries.keys()) {
    if (!expected.has(tensor)) throw corrupt(file.path, 'not the shard the index describes', { tensor, expected: `only tensors ${index} maps to it`, found: 'one more' });
  }
}

async function noWeights(files: Files, folder: string): Promise<LomoError> {
  const names = await files.list(folder);
  const pickled = names.find((name) => /^(pytorch_model.*|consolidated.*)\.(bin|pth|pt)$/.test(name));
  const next =
    pickled === undefined
      ? 'point at a Hugging Face model folder'
      : `it has ${pickled}, which is not read because unpickling runs code; save it again with save_pretrained(..., safe_serialization=True)`;
  return new LomoError('NoWeights', `${folder} has neither ${singleName} nor ${indexName}; ${next}`, { folder });
}
