// Builds a tokenizer from a Hugging Face folder with @huggingface/tokenizers, around that library's known faults.
// Plain JavaScript with checked types: worker processes start from this file as it is, from the sources and from the bundle alike.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { configLimit, failure, readJson, readText, tokenizerLimit } from './folder.js';

/** Tokens that one character may become (a ligature of eighteen letters, each of three bytes), and those of an empty text. */
const idsPerCharacter = 64;
const idsOfNothing = 1024;
/** Long texts are not made of ligatures: at most so many a character, and a million. */
const idsPerCharacterOfMany = 16;
const idsOfMany = 2 ** 20;
/** Characters that one token may become, and those of none. */
const charactersPerId = 1024;

/**
 * The tokenizer.json that GPT-2's vocab.json and merges.txt stand for: byte-level BPE, no prefix space, no BOS.
 * @param {string} folder
 * @returns {Record<string, any>}
 */
function fromVocabAndMerges(folder) {
  const vocab = readJson(folder, 'vocab.json', tokenizerLimit);
  const merges = [];
  for (const [i, raw] of readText(folder, 'merges.txt', tokenizerLimit).split('\n').entries()) {
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
    if (line === '' || (i === 0 && line.startsWith('#version'))) continue;
    const pair = line.split(' ');
    if (pair.length !== 2) throw failure('BadTokenizer', `${join(folder, 'merges.txt')}:${i + 1}: ${JSON.stringify(line.slice(0, 80))}, expected two tokens with one space between`);
    merges.push(pair);
  }
  const end = '<|endoftext|>';
  return {
    added_tokens: Object.hasOwn(vocab, end) ? [{ id: vocab[end], content: end, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }] : [],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges },
  };
}

/**
 * @param {Record<string, any>} description tokenizer.json
 * @param {string} folder
 */
function refuseUnsupported(description, folder) {
  const model = description['model'];
  if (typeof model !== 'object' || model === null || model.vocab === undefined) throw failure('BadTokenizer', `${folder}/tokenizer.json: no model with a vocab in it; copy the file again`);
  if (model.type === 'Unigram' && model.byte_fallback === true) {
    throw failure('UnsupportedTokenizer', `${folder}/tokenizer.json: a Unigram model with byte_fallback, which @huggingface/tokenizers 0.2.0 encodes wrongly; use a model with a BPE tokenizer, or tokenize elsewhere`);
  }
}

/**
 * The library's byte-fallback decoder drops U+FEFF (a TextDecoder without ignoreBOM), at any depth of the decoder.
 * @param {any} decoder
 */
function keepByteOrderMarks(decoder) {
  if (typeof decoder !== 'object' && typeof decoder !== 'function') return;
  if (decoder === null) return;
  if (decoder.text_decoder instanceof TextDecoder) decoder.text_decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  for (const inner of Array.isArray(decoder.decoders) ? decoder.decoders : []) keepByteOrderMarks(inner);
}

/** @type {import('./engine-types.ts').EngineModule['loadEngine']} */
export function loadEngine(folder) {
  const path = join(folder, 'tokenizer.json');
  const whole = existsSync(path);
  const read = whole ? readJson(folder, 'tokenizer.json', tokenizerLimit) : fromVocabAndMerges(folder);
  refuseUnsupported(read, folder);
  const description = { ...read, added_tokens: read['added_tokens'] ?? [], normalizer: read['normalizer'] ?? null, pre_tokenizer: read['pre_tokenizer'] ?? null, post_processor: read['post_processor'] ?? null, decoder: read['decoder'] ?? null };
  /** @param {string} name */
  const optional = (name) => (existsSync(join(folder, name)) ? readJson(folder, name, configLimit) : {});
  const [config, special] = [optional('tokenizer_config.json'), optional('special_tokens_map.json')];
  let tokenizer;
  try {
    // Clean-up joins " ," to "," when decoding: off unless the folder asks for it, so that decoding gives back what was encoded.
    tokenizer = new Tokenizer(description, { ...config, clean_up_tokenization_spaces: config['clean_up_tokenization_spaces'] ?? false });
  } catch (cause) {
    throw failure('BadTokenizer', `${whole ? path : folder}: ${(cause instanceof Error ? cause.message : String(cause)).slice(0, 300)}`);
  }
  keepByteOrderMarks(tokenizer.decoder);

  const vocabulary = tokenizer.get_vocab();
  let vocabSize = 0;
  for (const id of vocabulary.values()) vocabSize = Math.max(vocabSize, id + 1);
  /** @param {string} name */
  const idOf = (name) => {
    const value = config[name] ?? special[name];
    const content = typeof value === 'string' ? value : typeof value === 'object' && value !== null ? value.content : undefined;
    return typeof content === 'string' ? tokenizer.token_to_id(content) ?? null : null;
  };
  const endOfText = whole ? null : tokenizer.token_to_id('<|endoftext|>') ?? null;
  const facts = { folder, vocabSize, bosId: idOf('bos_token') ?? endOfText, eosId: idOf('eos_token') ?? endOfText, padId: idOf('pad_token') };

  return {
    facts,
    encode(text, specialTokens) {
      if (text === '' && description.post_processor === null) return new Int32Array(0);
      const { ids } = tokenizer.encode(text, { add_special_tokens: specialTokens });
      const most = Math.min(idsOfNothing + idsPerCharacter * text.length, idsOfMany + idsPerCharacterOfMany * text.length);
      if (ids.length > most) throw failure('TokenizerOutput', `${folder}: a text of ${text.length} characters became ${ids.length} tokens; at most ${most} are taken: the tokenizer is hostile or broken`);
      for (const id of ids) if (id === undefined) throw failure('BadTokenizer', `${folder}: text ${JSON.stringify(text.slice(0, 60))} has no token and the tokenizer names no unknown token`);
      return Int32Array.from(ids);
    },
    decode(ids, skipSpecialTokens) {
      // The library throws on an empty list.
      if (ids.length === 0) return '';
      for (const id of ids) {
        if (tokenizer.id_to_token(id) === undefined) throw failure('TokenOutOfRange', `token id ${id} is not in the vocabulary of ${folder} (${vocabSize} tokens); was it made by another tokenizer?`);
      }
      const text = tokenizer.decode([...ids], { skip_special_tokens: skipSpecialTokens });
      if (text.length > charactersPerId * (ids.length + 1)) throw failure('TokenizerOutput', `${folder}: ${ids.length} tokens became a text of ${text.length} characters; at most ${charactersPerId} a token are taken: the tokenizer is hostile or broken`);
      return text;
    },
  };
}
