// Reads tensors of one safetensors file by positional reads: no mapping, no buffer as large as the file. A walk over it checks its SHA-256 as it goes.
import type { Hash } from 'node:crypto';
import { createHash } from 'node:crypto';
import { endianness } from 'node:os';
import { LomoError } from '@lomo/tensor';
import { wrongSum } from '../confined.ts';
import type { Files, OpenFile } from '../files.ts';
import { nodeFiles, readFully } from '../files.ts';
import type { SafetensorsLimits, TensorEntry } from './header.ts';
import { checkFirst, corrupt, defaultLimits, headerLength, parseHeader } from './header.ts';

export interface OpenSafetensorsOptions {
  readonly files?: Files;
  readonly limits?: SafetensorsLimits;
}

/** Bytes of a tensor in the middle of a walk. */
export interface Stretch {
  readonly entry: TensorEntry;
  /** First byte, counted from the start of the tensor. */
  readonly at: number;
  /** To be used up before the next is asked for. */
  readonly bytes: Uint8Array;
}

/** An open safetensors file whose header has been checked. */
export class SafetensorsFile implements AsyncDisposable {
  readonly path: string;
  /** By name, in the order of their bytes. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  private readonly file: OpenFile;
  /** What the whole file must come to, and the sum of its header; null where nothing is known of it. */
  private readonly sum: { readonly expected: string; readonly header: Hash } | null;

  private constructor(file: OpenFile, header: { entries: readonly TensorEntry[]; metadata: Readonly<Record<string, string>> }, sum: { readonly expected: string; readonly header: Hash } | null) {
    this.file = file;
    this.sum = sum;
    this.path = file.path;
    this.entries = new Map(header.entries.map((entry) => [entry.name, entry]));
    this.metadata = header.metadata;
  }

  /** Opens and checks `path`. LomoError 'CorruptFile', 'CorruptJson', 'NotAFile' or 'FileError'. */
  static async open(path: string, options: OpenSafetensorsOptions = {}): Promise<SafetensorsFile> {
    if (endianness() !== 'LE') throw new LomoError('Unsupported', 'safetensors are little-endian and this machine is not');
    const { files = nodeFiles, limits = defaultLimits } = options;
    return SafetensorsFile.of(await files.open(path, 'read'), { limits });
  }

  /**
   * The same for a file that is open already; it is closed with the result, or when this fails. With `sha256` (hexadecimal) every `walk` to
   * the end checks the whole file.
   */
  static async of(file: OpenFile, options: { readonly limits?: SafetensorsLimits; readonly sha256?: string } = {}): Promise<SafetensorsFile> {
    const { limits = defaultLimits, sha256: expected } = options;
    const { path } = file;
    try {
      const { kind, size: fileBytes } = await file.facts();
      if (kind !== 'file') throw new LomoError('NotAFile', `${path} is not a regular file`, { path });
      // One byte of the JSON as well: what does not begin like a header is refused before room is made for it.
      const front = new Uint8Array(9);
      const prefix = front.subarray(0, await readFully(file, front, 0));
      const length = headerLength(prefix.subarray(0, 8), path, { fileBytes, limits });
      if (length > 0) checkFirst(prefix[8], path);
      const json = new Uint8Array(length);
      const found = await readFully(file, json, 8);
      if (found !== length) throw corrupt(path, 'truncated header', { expected: `${length} bytes`, found: `${found} bytes` });
      const header = parseHeader(json, path, { fileBytes, limits });
      return new SafetensorsFile(file, header, expected === undefined ? null : { expected, header: createHash('sha256').update(prefix.subarray(0, 8)).update(json) });
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The entry of `name`. Throws LomoError 'NoSuchTensor'. */
  entry(name: string): TensorEntry {
    const entry = this.entries.get(name);
    if (entry === undefined) throw new LomoError('NoSuchTensor', `${this.path}: no tensor ${JSON.stringify(name)}`, { path: this.path, tensor: name });
    return entry;
  }

  /** Fills `into` with the tensor's raw bytes from byte `from` of the tensor on. A file that has shrunk: 'CorruptFile'. */
  async read(name: string, into: Uint8Array, from = 0): Promise<void> {
    const entry = this.entry(name);
    if (from < 0 || from + into.byteLength > entry.bytes) {
      throw new LomoError('RangeError', `${this.path}: bytes ${from}..${from + into.byteLength} of ${name}, which has ${entry.bytes}`);
    }
    const found = await readFully(this.file, into, entry.offset + from);
    if (found !== into.byteLength) {
      throw corrupt(this.path, 'truncated file', { tensor: name, expected: `${into.byteLength} bytes at ${entry.offset + from}`, found: `${found} bytes` });
    }
  }

  /** The tensor's raw bytes in order, in slices of at most `room` bytes; every slice is the same buffer (`room` itself, if it is one), filled anew. */
  async *slices(name: string, room: number | Uint8Array = 2 ** 24): AsyncGenerator<Uint8Array, void, void> {
    const { bytes } = this.entry(name);
    const buffer = typeof room === 'number' ? new Uint8Array(Math.min(bytes, room)) : room;
    for (let at = 0; at < bytes; at += buffer.byteLength) {
      const slice = buffer.subarray(0, Math.min(buffer.byteLength, bytes - at));
      await this.read(name, slice, at);
      yield slice;
    }
  }

  /**
   * All tensors in the order of their bytes, in stretches of at most `room`, which every stretch fills anew. Where the file's SHA-256 is known,
   * each byte is read once and hashed, and the end of the walk is LomoError 'CorruptFile' unless all of them are right: until then, what was
   * read is not to be trusted. Where it is not, tensors that `wanted` refuses are passed over.
   */
  async *walk(room: Uint8Array, wanted: (name: string) => boolean = () => true): AsyncGenerator<Stretch, void, void> {
    const hash = this.sum?.header.copy();
    for (const entry of this.entries.values()) {
      const isWanted = wanted(entry.name);
      if (!isWanted && hash === undefined) continue;
      let at = 0;
      for await (const bytes of this.slices(entry.name, room)) {
        hash?.update(bytes);
        if (isWanted) yield { entry, at, bytes };
        at += bytes.byteLength;
      }
    }
    if (this.sum === null || hash === undefined) return;
    const { expected } = this.sum;
    const found = hash.digest('hex');
    if (found !== expected) throw wrongSum(this.path, { expected, found });
  }

  close(): Promise<void> {
    return this.file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
