// The header of a safetensors file: u64 length, JSON, then tensors back to back. Everything a hostile file could lie about is checked here.
import { LomoError } from '@lomo/tensor';
import type { JsonObject, JsonValue } from '../json.ts';
import { isJsonObject, parseJson } from '../json.ts';
import type { DiskType } from './diskType.ts';
import { diskTypeBytes, isDiskType } from './diskType.ts';

/** Where a tensor lies in its file. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: DiskType;
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

export interface Header {
  /** In the order of their bytes. */
  readonly entries: readonly TensorEntry[];
  readonly metadata: Readonly<Record<string, string>>;
}

export interface SafetensorsLimits {
  /** Bytes of JSON; 100 MB, the limit of the format's own library. */
  readonly headerBytes: number;
  readonly tensors: number;
  readonly dimensions: number;
  /** Characters of a tensor's name. */
  readonly name: number;
}

/** The largest models have some hundred thousand tensors over all their files. */
export const defaultLimits: SafetensorsLimits = { headerBytes: 100_000_000, tensors: 250_000, dimensions: 16, name: 4096 };
/** Entries of `__metadata__` that are read. */
const metadataLimit = 10_000;

/** A LomoError 'CorruptFile' that names file, tensor (where there is one), expected and found. */
export function corrupt(path: string, why: string, facts: { readonly tensor?: string; readonly expected?: unknown; readonly found?: unknown } = {}): LomoError {
  const tensor = facts.tensor === undefined ? '' : `: tensor ${JSON.stringify(facts.tensor.slice(0, 200))}`;
  const met = 'expected' in facts ? `: expected ${String(facts.expected)}, found ${String(facts.found)}` : '';
  return new LomoError('CorruptFile', `${path}${tensor}: ${why}${met}; fetch the file again`, { path, ...facts });
}

/** The JSON length in the first 8 bytes; refused before anything is allocated when the file or the limit is smaller. */
export function headerLength(prefix: Uint8Array, path: string, facts: { readonly fileBytes: number; readonly limits: SafetensorsLimits }): number {
  if (prefix.byteLength < 8) throw corrupt(path, 'no room for the header length', { expected: '8 bytes', found: `${prefix.byteLength} bytes` });
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(facts.limits.headerBytes)) {
    throw corrupt(path, 'header too long, or not a safetensors file', { expected: `at most ${facts.limits.headerBytes} bytes`, found: `${length} bytes` });
  }
  if (length + 8n > BigInt(facts.fileBytes)) {
    throw corrupt(path, 'truncated header', { expected: `${length + 8n} bytes`, found: `${facts.fileBytes} bytes` });
  }
  return Number(length);
}

/** The first byte of the JSON: 'CorruptFile' unless it is '{', by which most files of another kind are told before they are read. */
export function checkFirst(byte: number | undefined, path: string): void {
  if (byte !== 0x7b) throw corrupt(path, "a header starts with '{'");
}

/** Parses and checks `json`, the header of a file of `fileBytes` bytes. Every failure is 'CorruptFile' or 'CorruptJson'. */
export function parseHeader(json: Uint8Array, path: string, facts: { readonly fileBytes: number; readonly limits: SafetensorsLimits }): Header {
  const { limits, fileBytes } = facts;
  checkFirst(json[0], path);
  // The file, its tensors, a tensor's shape and offsets: nothing valid has more levels or more parts.
  const root = parseJson(json, path, { depth: 3, values: limits.tensors * (limits.dimensions + 6) + metadataLimit, containers: 2 + 3 * limits.tensors });
  if (!isJsonObject(root)) throw corrupt(path, 'the header is not an object');
  const names = Object.keys(root).filter((name) => name !== '__metadata__');
  if (names.length > limits.tensors) throw corrupt(path, 'too many tensors', { expected: `at most ${limits.tensors}`, found: names.length });
  const dataStart = 8 + json.byteLength;
  const entries = names.map((name) => entryOf(name, root[name]!, { path, dataStart, limits }));
  entries.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  for (const entry of entries) {
    const { name: tensor, offset } = entry;
    if (offset !== end) throw corrupt(path, offset < end ? 'overlaps the tensor before it' : 'leaves a hole before it', { tensor, expected: `offset ${end - dataStart}`, found: `offset ${offset - dataStart}` });
    end = offset + entry.bytes;
    if (end > fileBytes) throw corrupt(path, 'truncated file', { tensor, expected: `${end} bytes`, found: `${fileBytes} bytes` });
  }
  if (end !== fileBytes) throw corrupt(path, 'bytes after the last tensor', { expected: `${end} bytes`, found: `${fileBytes} bytes` });
  return { entries, metadata: metadataOf(root, path) };
}

function entryOf(name: string, value: JsonValue, file: { path: string; dataStart: number; limits: SafetensorsLimits }): TensorEntry {
  const { path, dataStart, limits } = file;
  const bad = (why: string, expected: unknown, found: unknown) => corrupt(path, why, { tensor: name, expected, found });
  if (name.length > limits.name) throw bad('name too long', `at most ${limits.name} characters`, name.length);
  if (!isJsonObject(value)) throw bad('bad entry', 'an object', JSON.stringify(value).slice(0, 80));
  for (const key of Object.keys(value)) {
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets') throw bad('unknown key', 'dtype, shape, data_offsets', JSON.stringify(key.slice(0, 80)));
  }
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !isDiskType(dtype)) throw bad('unknown dtype', Object.keys(diskTypeBytes).join(', '), JSON.stringify(dtype)?.slice(0, 80));
  if (!isSizes(shape) || shape.length > limits.dimensions) throw bad('bad shape', `at most ${limits.dimensions} sizes`, JSON.stringify(shape)?.slice(0, 80));
  if (!isSizes(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) throw bad('bad data_offsets', '[begin, end]', JSON.stringify(offsets)?.slice(0, 80));
  const [begin, end] = offsets as [number, number];
  // BigInt: a shape such as [2^40, 2^40] must not wrap around or lose digits.
  const needed = shape.reduce((n, size) => n * BigInt(size), BigInt(diskTypeBytes[dtype]));
  if (needed !== BigInt(end - begin)) throw bad(`shape [${shape.join(', ')}] of ${dtype} does not fill its bytes`, `${needed} bytes`, `${end - begin} bytes`);
  if (!Number.isSafeInteger(dataStart + end)) throw bad('offset too large', 'below 2^53', end);
  return { name, dtype, shape, offset: dataStart + begin, bytes: end - begin };
}

function isSizes(value: JsonValue | undefined): value is readonly number[] {
  return Array.isArray(value) && value.every((n) => typeof n === 'number' && Number.isSafeInteger(n) && n >= 0 && !Object.is(n, -0));
}

function metadataOf(root: JsonObject, path: string): Readonly<Record<string, string>> {
  const value = root['__metadata__'];
  const result = Object.create(null) as Record<string, string>;
  if (value === undefined) return result;
  if (!isJsonObject(value)) throw corrupt(path, '__metadata__ is not an object of strings');
  const entries = Object.entries(value);
  if (entries.length > metadataLimit) throw corrupt(path, 'too many entries of __metadata__', { expected: `at most ${metadataLimit}`, found: entries.length });
  for (const [key, text] of entries) {
    if (typeof text !== 'string') throw corrupt(path, `__metadata__ ${JSON.stringify(key.slice(0, 80))} is not a string`);
    result[key] = text;
  }
  return result;
}
