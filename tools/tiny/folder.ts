// A tiny model's folder and data file, written on the spot: what tests of whole runs begin with.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const words = ['<unk>', '<s>', '</s>', ...Array.from({ length: 29 }, (_, i) => String.fromCharCode(97 + i % 26) + (i >= 26 ? 'x' : ''))];

/** A folder with config.json and a word tokenizer of 32 tokens; weights are the seed's. */
export function modelFolder(changes: Readonly<Record<string, unknown>> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-trainer-model-'));
  const config = {
    model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2,
    num_key_value_heads: 1, vocab_size: words.length, max_position_embeddings: 64, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu',
    tie_word_embeddings: true, bos_token_id: 1, eos_token_id: 2, ...changes,
  };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const special = words.slice(0, 3).map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }));
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify({
    version: '1.0', added_tokens: special, normalizer: null, pre_tokenizer: { type: 'WhitespaceSplit' }, decoder: null,
    post_processor: {
      type: 'TemplateProcessing', single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }], special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    model: { type: 'WordLevel', vocab: Object.fromEntries(words.map((word, id) => [word, id])), unk_token: '<unk>' },
  }));
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' }));
  return folder;
}

/** A JSONL file of `count` small sums of letters: enough to learn something from. */
export function dataFile(count = 40): string {
  const path = join(mkdtempSync(join(tmpdir(), 'lomo-trainer-data-')), 'train.jsonl');
  const letter = (i: number): string => String.fromCharCode(97 + (i % 26));
  const rows = Array.from({ length: count }, (_, i) => JSON.stringify({ prompt: `${letter(i)} ${letter(i + 3)}`, completion: ` ${letter(i + 1)} ${letter(i + 4)}` }));
  writeFileSync(path, `${rows.join('\n')}\n`);
  return path;
}
