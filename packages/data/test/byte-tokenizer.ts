// A tiny real tokenizer for tests: byte-fallback BPE, 3 special tokens and 256 bytes, BOS first; one token a byte.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Writes the tokenizer's folder and returns its path. Ids: 0 <unk>, 1 <s>, 2 </s>, 3 + byte. `pattern` splits words. */
export function byteTokenizer(config: Readonly<Record<string, unknown>> = { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' }, pattern?: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-data-tokenizer-'));
  const names = ['<unk>', '<s>', '</s>'];
  const vocab: Record<string, number> = {};
  names.forEach((name, id) => { vocab[name] = id; });
  for (let byte = 0; byte < 256; byte += 1) vocab[`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`] = byte + 3;
  const added_tokens = names.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }));
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify({
    version: '1.0', added_tokens, normalizer: null, pre_tokenizer: pattern === undefined ? null : { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'Fuse' }] },
    model: { type: 'BPE', dropout: null, unk_token: '<unk>', continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: true, byte_fallback: true, ignore_merges: false, vocab, merges: [] },
  }));
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
  return folder;
}
