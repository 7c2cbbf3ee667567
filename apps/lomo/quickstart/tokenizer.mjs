// Trains the quickstart's byte-level BPE (512 tokens) on its stories and writes tokenizer.json and tokenizer_config.json in the
// Hugging Face format. Run: node tokenizer.mjs [--out DIR]
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { story } from './corpus.mjs';

/** Size of the vocabulary: 2 specials, 256 bytes, 254 merges. */
export const vocabularySize = 512;
/** Beginning and end of a document; ids 0 and 1. */
export const specials = ['<s>', '</s>'];

/** How text is cut into words before merging: the expression of GPT-2, which the `ByteLevel` pre-tokenizer of tokenizer.json stands for. */
const words = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** The 256 characters that stand for bytes in a byte-level vocabulary: printable ones for themselves, the others from U+0100 upwards. */
export function byteCharacters() {
  const printable = (b) => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  let next = 0x100;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
}

/**
 * Byte-pair merges learnt from `texts`: the heaviest pair first, ties to the pair that sorts first. `[left, right][]`. A word weighs the logarithm
 * of its frequency, so that rare words become whole tokens too: a small model finds a word of one token far sooner than one of four.
 */
export function learnMerges(texts, count) {
  const characters = byteCharacters();
  const frequency = new Map();
  for (const text of texts) for (const [word] of text.matchAll(words)) frequency.set(word, (frequency.get(word) ?? 0) + 1);
  const pieces = [...frequency].map(([word, times]) => ({ times: Math.log(1 + times), parts: [...Buffer.from(word, 'utf8')].map((b) => characters[b]) }));
  const merges = [];
  while (merges.length < count) {
    const pairs = new Map();
    for (const { times, parts } of pieces) for (let i = 1; i < parts.length; i++) {
      const pair = `${parts[i - 1]} ${parts[i]}`;
      pairs.set(pair, (pairs.get(pair) ?? 0) + times);
    }
    const best = [...pairs].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))[0];
    if (best === undefined) throw new Error(`tokenizer: the texts have only ${merges.length} merges, ${count} are needed; give more text`);
    const [left, right] = best[0].split(' ');
    merges.push([left, right]);
    for (const piece of pieces) {
      const out = [];
      for (const part of piece.parts) {
        if (part === right && out.at(-1) === left) out[out.length - 1] = left + right;
        else out.push(part);
      }
      piece.parts = out;
    }
  }
  return merges;
}

/** tokenizer.json as an object: byte-level BPE with `<s>` put in front of every text, as the tokenizers of LLaMA do. */
export function tokenizerJson(merges) {
  const vocab = Object.fromEntries([...specials, ...byteCharacters(), ...merges.map(([a, b]) => a + b)].map((token, id) => [token, id]));
  if (Object.keys(vocab).length !== vocabularySize) throw new Error(`tokenizer: ${Object.keys(vocab).length} distinct tokens, ${vocabularySize} expected; two merges give the same token`);
  const bos = specials[0];
  return {
    version: '1.0', truncation: null, padding: null,
    added_tokens: specials.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }, { SpecialToken: { id: bos, type_id: 1 } }, { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: { [bos]: { id: bos, ids: [0], tokens: [bos] } },
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges },
  };
}

/** tokenizer_config.json as an object. */
export function tokenizerConfig() {
  return {
    tokenizer_class: 'PreTrainedTokenizerFast', bos_token: specials[0], eos_token: specials[1], pad_token: specials[1], unk_token: null,
    add_bos_token: true, add_eos_token: false, clean_up_tokenization_spaces: false, model_max_length: 256,
  };
}

function main() {
  const here = dirname(fileURLToPath(import.meta.url));
  const { values } = parseArgs({ options: { out: { type: 'string', default: join(here, 'model') } } });
  mkdirSync(values.out, { recursive: true });
  const merges = learnMerges(Array.from({ length: 5000 }, (_, i) => story(i)), vocabularySize - specials.length - 256);
  writeFileSync(join(values.out, 'tokenizer.json'), `${JSON.stringify(tokenizerJson(merges))}\n`);
  writeFileSync(join(values.out, 'tokenizer_config.json'), `${JSON.stringify(tokenizerConfig(), null, 2)}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
