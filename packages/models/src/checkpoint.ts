// A Hugging Face folder's weights: one safetensors file or the shards an index names. No file outside the model's folder is opened.
import { join } from 'node:path';
import { LomoError } from '@lomo/tensor';
import type { Sums } from './confined.ts';
import { ConfinedFolder } from './confined.ts';
import type { Files } from './files.ts';
import { isJsonObject, parseJson } from './json.ts';
import type { SafetensorsLimits, TensorEntry } from './safetensors/header.ts';
import { corrupt, defaultLimits } from './safetensors/header.ts';
import { SafetensorsFile } from './safetensors/read.ts';

export const singleName = 'model.safetensors';
export const indexName = 'model.safetensors.index.json';

/** Values of an index beside its tensors, such as those of its metadata. */
const indexExtras = 10_000;

/** Most files that an index may name: each stays open while its model is loaded. */
export const shardLimit = 1000;

export interface OpenCheckpointOptions {
  readonly files?: Files;
  readonly limits?: SafetensorsLimits;
  /** What the manifest says of the folder's files: none but these is opened, and `walk` of each file ends in the check of its sum. */
  readonly sums?: Sums;
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
  /** The safetensors files, in the order of the index. */
  readonly files: readonly SafetensorsFile[];

  constructor(folder: string, open: readonly SafetensorsFile[], fileNames: readonly string[]) {
    this.folder = folder;
    this.files = open;
    this.fileNames = fileNames;
    this.tensors = new Map(open.flatMap((file) => [...file.entries].map(([name, entry]) => [name, { ...entry, file }] as const)));
  }

  /** Throws LomoError 'NoSuchTensor'. */
  tensor(name: string): CheckpointTensor {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw new LomoError('NoSuchTensor', `${this.folder}: no tensor ${JSON.stringify(name.slice(0, 200))}`, { folder: this.folder, tensor: name });
    return tensor;
  }

  async close(): Promise<void> {
    for (const file of this.files) await file.close();
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
  const limits = options.limits ?? defaultLimits;
  const inside = await ConfinedFolder.open(folder, options);
  const open: SafetensorsFile[] = [];
  const openOne = async (name: string): Promise<SafetensorsFile> => {
    const sha256 = inside.expected(name);
    const file = await SafetensorsFile.of(await inside.open(name), { limits, ...(sha256 === undefined ? {} : { sha256 }) });
    open.push(file);
    return file;
  };
  try {
    if (await inside.has(singleName)) {
      await openOne(singleName);
      return new Checkpoint(folder, open, [singleName]);
    }
    if (!(await inside.has(indexName))) throw await noWeights(inside.files, folder);
    const indexPath = join(folder, indexName);
    const byShard = readIndex(await inside.read(indexName, limits.headerBytes), indexPath, limits);
    for (const [name, tensors] of byShard) {
      if (!(await inside.has(name))) {
        throw new LomoError('MissingShard', `${indexPath} names ${name}, which is not there; fetch it again`, { path: join(folder, name) });
      }
      checkShard(await openOne(name), tensors, indexPath);
    }
    return new Checkpoint(folder, open, [...byShard.keys(), indexName]);
  } catch (error) {
    for (const file of open) await file.close().catch(() => {});
    throw error;
  }
}

function readIndex(bytes: Uint8Array, path: string, limits: SafetensorsLimits): ReadonlyMap<string, ReadonlySet<string>> {
  const root = parseJson(bytes, path, { values: limits.tensors + indexExtras, containers: indexExtras });
  const map = isJsonObject(root) ? root['weight_map'] : undefined;
  if (!isJsonObject(map)) throw corrupt(path, "no 'weight_map' object");
  const byShard = new Map<string, Set<string>>();
  for (const [tensor, name] of Object.entries(map)) {
    if (typeof name !== 'string') throw corrupt(path, 'a shard is not a string', { tensor, expected: 'a file name', found: JSON.stringify(name).slice(0, 80) });
    if (!/^[^/\\:\0]+\.safetensors$/.test(name) || name.startsWith('.')) {
      throw new LomoError('OutsideFolder', `${path}: tensor ${JSON.stringify(tensor.slice(0, 200))} is mapped to ${JSON.stringify(name.slice(0, 200))}; only a plain *.safetensors name in the same folder is opened`, { path, tensor, name });
    }
    const known = byShard.get(name);
    if (known === undefined) byShard.set(name, new Set([tensor]));
    else known.add(tensor);
  }
  if (byShard.size > shardLimit) throw new LomoError('TooMany', `${path} names ${byShard.size} files; at most ${shardLimit} are opened`, { path });
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
