// Tokenizers of Hugging Face folders: small ones in this thread, large ones and bulk work in worker processes, one interface for both.
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DataError } from '../errors.ts';
import type { Engine, EngineModule, TokenizerFacts } from './engine-types.ts';
import { codeOf, TokenizerPool } from './pool.ts';
import { isQuick } from './quick.ts';

export type { TokenizerFacts } from './engine-types.ts';

/** Default true: the tokenizer's own BOS (and EOS, where it has that) are added. */
export interface EncodeOptions { readonly specialTokens?: boolean }

/** Default false: special tokens are written out. */
export interface DecodeOptions { readonly skipSpecialTokens?: boolean }

/** A tokenizer that never blocks the event loop for long. Text such as `<s>` in the input becomes the special token, as in transformers. */
export interface Tokenizer extends TokenizerFacts, AsyncDisposable {
  encode(text: string, options?: EncodeOptions): Promise<Int32Array>;
  /** One row of ids per text, in order. */
  encodeAll(texts: readonly string[], options?: EncodeOptions): Promise<readonly Int32Array[]>;
  /** Text of the ids; '' for none. Throws DataError TokenOutOfRange for an id that is no token. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): Promise<string>;
  decodeAll(rows: readonly ArrayLike<number>[], options?: DecodeOptions): Promise<readonly string[]>;
  /** Ends its worker processes. Idle ones do not keep this process alive. */
  close(): Promise<void>;
}

/** A tokenizer in this thread. */
export interface SyncTokenizer extends TokenizerFacts {
  encode(text: string, options?: EncodeOptions): Int32Array;
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
}

/** How a tokenizer runs. */
export interface TokenizerOptions {
  /** Most worker processes for bulk work; default 2. Each holds a tokenizer of its own (GPT-2: some 60 MB). */
  readonly threads?: number;
  /** Tokenizer files up to this size, without steps that a text could make slow (`isQuick`), also load in this thread, in about a millisecond per 10 KB; default 131072 bytes. */
  readonly inProcessBytes?: number;
  /** A job (at most 65536 characters, or one text) that takes longer fails with TokenizerTimeout; default 120000. */
  readonly budgetMs?: number;
  /** Most heap of a worker process, in MiB; default 512 and 64 times the tokenizer's files, at most 4096. What takes more fails with TokenizerWorker. */
  readonly heapMb?: number;
}

const heapBase = 512;           // MiB; GPT-2, whose files have 1.5 MB, takes some 60
const heapPerByte = 64;
const mostHeap = 4096;          // MiB
const smallText = 8192;         // characters encoded in this thread at once; a few milliseconds
const jobCharacters = 65_536;
const jobTexts = 512;

/**
 * Opens the tokenizer of a folder: `tokenizer.json` (with tokenizer_config.json, special_tokens_map.json where present), or GPT-2's `vocab.json` and
 * `merges.txt`. Throws DataError MissingTokenizer, BadTokenizer (links out of the folder included), TokenizerTimeout or UnsupportedTokenizer (Unigram with byte fallback).
 */
export async function openTokenizer(folder: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
  const { threads = 2, inProcessBytes = 131_072, budgetMs = 120_000 } = options;
  if (!Number.isInteger(threads) || threads < 1) throw new DataError('BadOption', `openTokenizer: threads is ${threads}, expected a whole number from 1`);
  const bytes = await tokenizerBytes(folder);
  const heapMb = options.heapMb ?? Math.min(mostHeap, heapBase + Math.ceil((bytes * heapPerByte) / 2 ** 20));
  const pool = new TokenizerPool(folder, { threads, budgetMs, heapMb });
  if (bytes <= inProcessBytes && (await isQuickFolder(folder))) {
    const engine = await loadEngine(folder);
    return tokenizer(engine.facts, pool, engine);
  }
  try {
    return tokenizer(await pool.facts(), pool, null);
  } catch (error) {
    await pool.close();
    throw error;
  }
}

/** Loads a tokenizer into this thread, with synchronous encode and decode. Loading blocks: 0.1 to 0.3 s for GPT-2's size. Throws as openTokenizer does. */
export async function loadTokenizer(folder: string): Promise<SyncTokenizer> {
  await tokenizerBytes(folder);
  const engine = await loadEngine(folder);
  return {
    ...engine.facts,
    encode: (text, { specialTokens = true } = {}) => typed(() => engine.encode(text, specialTokens)),
    decode: (ids, { skipSpecialTokens = false } = {}) => typed(() => engine.decode(Array.from(ids), skipSpecialTokens)),
  };
}

function tokenizer(facts: TokenizerFacts, pool: TokenizerPool, engine: Engine | null): Tokenizer {
  const encodeAll = async (texts: readonly string[], { specialTokens = true }: EncodeOptions = {}): Promise<readonly Int32Array[]> => {
    if (engine !== null && texts.reduce((sum, text) => sum + text.length, 0) <= smallText) {
      return typed(() => texts.map((text) => engine.encode(text, specialTokens)));
    }
    const rows = await Promise.all(cutIntoJobs(texts, (text) => text.length).map(async (job) => {
      const answer = await pool.run({ kind: 'encode', texts: job, specialTokens });
      return answer.kind === 'ids' ? cut(answer.ids, answer.lengths) : [];
    }));
    return rows.flat();
  };
  const decodeAll = async (rows: readonly ArrayLike<number>[], { skipSpecialTokens = false }: DecodeOptions = {}): Promise<readonly string[]> => {
    if (engine !== null && rows.reduce((sum, row) => sum + row.length, 0) <= smallText) {
      return typed(() => rows.map((ids) => engine.decode(Array.from(ids), skipSpecialTokens)));
    }
    const texts = await Promise.all(cutIntoJobs(rows, (row) => row.length).map(async (job) => {
      const answer = await pool.run({ kind: 'decode', rows: job.map((ids) => Array.from(ids)), skipSpecialTokens });
      return answer.kind === 'texts' ? answer.texts : [];
    }));
    return texts.flat();
  };
  const first = async <T>(list: Promise<readonly T[]>): Promise<T> => {
    const [value] = await list;
    if (value === undefined) throw new DataError('TokenizerWorker', `tokenizer of ${facts.folder}: no answer to a job; report this`);
    return value;
  };
  return {
    ...facts,
    encodeAll,
    decodeAll,
    encode: (text, options) => first(encodeAll([text], options)),
    decode: (ids, options) => first(decodeAll([ids], options)),
    close: () => pool.close(),
    [Symbol.asyncDispose]: () => pool.close(),
  };
}

function cutIntoJobs<T>(items: readonly T[], sizeOf: (item: T) => number): readonly (readonly T[])[] {
  const jobs: T[][] = [];
  let job: T[] = [];
  let size = 0;
  for (const item of items) {
    if (job.length > 0 && (job.length === jobTexts || size + sizeOf(item) > jobCharacters)) {
      jobs.push(job);
      job = [];
      size = 0;
    }
    job.push(item);
    size += sizeOf(item);
  }
  if (job.length > 0) jobs.push(job);
  return jobs;
}

function cut(ids: Int32Array, lengths: readonly number[]): readonly Int32Array[] {
  let at = 0;
  return lengths.map((length) => ids.subarray(at, at += length));
}

/** The engine throws plain Errors with a code; here they become DataErrors, as they do when they come from a worker. */
function typed<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? new DataError(codeOf(cause.code), cause.message, {}, cause) : cause;
  }
}

async function loadEngine(folder: string): Promise<Engine> {
  // By URL, so that the same file serves this thread and the workers, in the sources and in the bundle.
  const module: EngineModule = await import(new URL('./engine.js', import.meta.url).href);
  return typed(() => module.loadEngine(folder));
}

/** What the engine will say of a broken file, it says in a worker as well. */
async function isQuickFolder(folder: string): Promise<boolean> {
  let text: string;
  try {
    text = await readFile(join(folder, 'tokenizer.json'), 'utf8');
  } catch {
    return true;   // no tokenizer.json: vocab.json and merges.txt have no steps of their own
  }
  try {
    return isQuick(JSON.parse(text) as Readonly<Record<string, unknown>>);
  } catch {
    return false;
  }
}

async function tokenizerBytes(folder: string): Promise<number> {
  const size = async (name: string): Promise<number | null> => {
    const facts = await stat(join(folder, name)).catch(() => null);
    if (facts !== null && !facts.isFile()) throw new DataError('BadTokenizer', `${join(folder, name)} is not a regular file`);
    return facts?.size ?? null;
  };
  const whole = await size('tokenizer.json');
  if (whole !== null) return whole;
  const [vocab, merges] = [await size('vocab.json'), await size('merges.txt')];
  if (vocab !== null && merges !== null) return vocab + merges;
  const sentencepiece = await size('tokenizer.model');
  throw new DataError('MissingTokenizer', `${folder}: no tokenizer.json, and no vocab.json with merges.txt${sentencepiece === null ? '' : ' (tokenizer.model alone is not read)'}; save the tokenizer with transformers' save_pretrained into this folder`, { folder });
}
