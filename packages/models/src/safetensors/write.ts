// Writes safetensors files tensor by tensor from asynchronous sources, one file or shards with an index, as Hugging Face names them.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { LomoError } from '@lomo/tensor';
import type { Files } from '../files.ts';
import { closing, nodeFiles, writeFully, writeWhole } from '../files.ts';
import type { DiskType } from './diskType.ts';
import { diskTypeBytes } from './diskType.ts';

/** A tensor to write. `slices` yields its raw bytes in order; a slice is used up before the next one is asked for. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: DiskType;
  readonly shape: readonly number[];
  slices(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** A file as written and made durable; `sha256` in hexadecimal. */
export interface WrittenFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

export interface WriteSafetensorsOptions {
  readonly files?: Files;
  /** `{ format: 'pt' }` unless given: transformers asks for it. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface WriteShardsOptions extends WriteSafetensorsOptions {
  /** Most tensor bytes in one file; 5e9 unless given, Hugging Face's own limit. A larger tensor gets a file of its own. */
  readonly shardBytes?: number;
}

/** Bytes of a source's tensor. */
export function sourceBytes(source: { readonly dtype: DiskType; readonly shape: readonly number[] }): number {
  return source.shape.reduce((n, size) => n * size, diskTypeBytes[source.dtype]);
}

/** Writes one file at `path` and makes its bytes durable (not its name: sync the folder). A source of the wrong length: 'WrongLength'. */
export async function writeSafetensors(path: string, sources: readonly TensorSource[], options: WriteSafetensorsOptions = {}): Promise<WrittenFile> {
  const header = headerOf(path, sources, options.metadata ?? { format: 'pt' });
  const hash = createHash('sha256');
  let at = 0;
  await closing(await (options.files ?? nodeFiles).open(path, 'write'), async (file) => {
    const put = async (bytes: Uint8Array): Promise<void> => {
      await writeFully(file, bytes, at);
      hash.update(bytes);
      at += bytes.byteLength;
    };
    await put(header);
    for (const source of sources) {
      const start = at;
      for await (const slice of source.slices()) await put(slice);
      if (at - start !== sourceBytes(source)) {
        throw new LomoError('WrongLength', `${path}: ${source.name} gave ${at - start} bytes, its shape needs ${sourceBytes(source)}`, { path, tensor: source.name });
      }
    }
    await file.sync();
  });
  return { name: path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1), bytes: at, sha256: hash.digest('hex') };
}

/** Writes `model.safetensors`, or shards and `model.safetensors.index.json`, into an existing folder; returns what it wrote. */
export async function writeShards(folder: string, sources: readonly TensorSource[], options: WriteShardsOptions = {}): Promise<readonly WrittenFile[]> {
  const shards = split(sources, options.shardBytes ?? 5e9);
  if (shards.length <= 1) return [await writeSafetensors(join(folder, 'model.safetensors'), sources, options)];
  const written: WrittenFile[] = [];
  const weightMap: Record<string, string> = {};
  const number = (n: number) => String(n).padStart(5, '0');
  for (const [i, shard] of shards.entries()) {
    const name = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    written.push(await writeSafetensors(join(folder, name), shard, options));
    for (const source of shard) weightMap[source.name] = name;
  }
  const total = sources.reduce((n, source) => n + sourceBytes(source), 0);
  const index = `${JSON.stringify({ metadata: { total_size: total }, weight_map: weightMap }, null, 2)}\n`;
  const bytes = new TextEncoder().encode(index);
  await writeWhole(options.files ?? nodeFiles, join(folder, 'model.safetensors.index.json'), bytes);
  written.push({ name: 'model.safetensors.index.json', bytes: bytes.byteLength, sha256: createHash('sha256').update(bytes).digest('hex') });
  return written;
}

function headerOf(path: string, sources: readonly TensorSource[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const root = new Map<string, unknown>([['__metadata__', metadata]]);
  let at = 0;
  for (const source of sources) {
    if (root.has(source.name)) throw new LomoError('DuplicateTensor', `${path}: ${source.name} is given twice`, { path, tensor: source.name });
    const bytes = sourceBytes(source);
    root.set(source.name, { dtype: source.dtype, shape: source.shape, data_offsets: [at, at + bytes] });
    at += bytes;
  }
  // Object.fromEntries would lose a tensor named '__proto__'.
  const json = `{${[...root].map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`;
  const text = new TextEncoder().encode(json);
  const padded = Math.ceil(text.byteLength / 8) * 8;
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(text, 8);
  return header;
}

function split(sources: readonly TensorSource[], limit: number): readonly (readonly TensorSource[])[] {
  const shards: TensorSource[][] = [];
  let bytes = Infinity;
  for (const source of sources) {
    const more = sourceBytes(source);
    if (bytes + more > limit) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(source);
    bytes += more;
  }
  return shards;
}
