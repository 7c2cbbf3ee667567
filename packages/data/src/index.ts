// Datasets, templates, tokenizers, masks and packing: deterministic batches as typed arrays.
export { DataError } from './errors.ts';
export type { DataErrorCode } from './errors.ts';
export { loadTokenizer, openTokenizer } from './tokenizer/tokenizer.ts';
export type { DecodeOptions, EncodeOptions, SyncTokenizer, Tokenizer, TokenizerFacts, TokenizerOptions } from './tokenizer/tokenizer.ts';
