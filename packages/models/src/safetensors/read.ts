// Reads tensors of one safetensors file by positional reads: no mapping, no buffer as large as the file.
import { endianness } from 'node:os';
import { LomoError } from '@lomo/tensor';
import type { Files, OpenFile } from '../files.ts';
import { nodeFiles, readFully } from '../files.ts';
import type { SafetensorsLimits, TensorEntry } from './header.ts';
import { corrupt, defaultLimits, headerLength, parseHeader } from './header.ts';

export interface OpenSafetensorsOptions {
  readonly files?: Files;
  readonly limits?: SafetensorsLimits;
}

/** An open safetensors file whose header has been checked. */
export class SafetensorsFile implements AsyncDisposable {
  readonly path: string;
  /** By name, in the order of their bytes. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  private readonly file: OpenFile;

  private constructor(file: OpenFile, header: { entries: readonly TensorEntry[]; metadata: Readonly<Record<string, string>> }) {
    this.file = file;
    this.path = file.path;
    this.entries = new Map(header.entries.map((entry) => [entry.name, entry]));
    this.metadata = header.metadata;
  }

  /** Opens and checks `path`. LomoError 'CorruptFile', 'CorruptJson', 'NotAFile' or 'FileError'. */
  static async open(path: string, options: OpenSafetensorsOptions = {}): Promise<SafetensorsFile> {
    if (endianness() !== 'LE') throw new LomoError('Unsupported', 'safetensors are little-endian and this machine is not');
    const limits = options.limits ?? defaultLimits;
    const file = await (options.files ?? nodeFiles).open(path, 'read');
    try {
      const { kind, size: fileBytes } = await file.facts();
      if (kind !== 'file') throw new LomoError('NotAFile', `${path} is not a regular file`, { path });
      const prefix = new Uint8Array(8);
      const length = headerLength(prefix.subarray(0, await readFully(file, prefix, 0)), path, { fileBytes, limits });
      const json = new Uint8Array(length);
      const found = await readFully(file, json, 8);
      if (found !== length) throw corrupt(path, 'truncated header', { expected: `${length} bytes`, found: `${found} bytes` });
      return new SafetensorsFile(file, parseHeader(json, path, { fileBytes, limits }));
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

  close(): Promise<void> {
    return this.file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
