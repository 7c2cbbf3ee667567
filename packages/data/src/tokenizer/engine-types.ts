// The contract between the tokenizer engine (plain JavaScript, so that a worker process can start from it unbuilt) and the typed code around it.

/** What is known of a tokenizer without encoding anything. */
export interface TokenizerFacts {
  /** Folder the tokenizer was read from. */
  readonly folder: string;
  /** Highest token id + 1. */
  readonly vocabSize: number;
  /** Beginning-of-sequence id, or null where the tokenizer names none. */
  readonly bosId: number | null;
  /** End-of-text id, or null where the tokenizer names none. */
  readonly eosId: number | null;
  /** Padding id, or null where the tokenizer names none. */
  readonly padId: number | null;
}

/** One loaded tokenizer. Its errors are plain Errors with a `code`. */
export interface Engine {
  readonly facts: TokenizerFacts;
  encode(text: string, specialTokens: boolean): Int32Array;
  decode(ids: readonly number[], skipSpecialTokens: boolean): string;
}

/** What `engine.js` exports. */
export interface EngineModule {
  /** Reads a folder and builds its tokenizer; blocks the thread (GPT-2: 0.1 to 0.3 s). */
  loadEngine(folder: string): Engine;
}

/** A job for a worker. */
export type Request =
  | { readonly id: number; readonly kind: 'encode'; readonly texts: readonly string[]; readonly specialTokens: boolean }
  | { readonly id: number; readonly kind: 'decode'; readonly rows: readonly (readonly number[])[]; readonly skipSpecialTokens: boolean };

/** What a worker says; `lengths` cut `ids` into one run per text. */
export type Response =
  | { readonly kind: 'ready'; readonly facts: TokenizerFacts }
  | { readonly kind: 'ids'; readonly id: number; readonly ids: Int32Array<ArrayBuffer>; readonly lengths: readonly number[] }
  | { readonly kind: 'texts'; readonly id: number; readonly texts: readonly string[] }
  | { readonly kind: 'failed'; readonly id: number | null; readonly code: string; readonly message: string };
