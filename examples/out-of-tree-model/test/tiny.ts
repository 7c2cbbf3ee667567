// A tiny model's folder and a data file, written on the spot, and the settings of a run over them.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineRun } from '@lomo/trainer';
import type { RunInput } from '@lomo/trainer';

const letters = Array.from({ length: 26 }, (_, i) => String.fromCharCode(97 + i));
const words = ['<unk>', '<s>', '</s>', ...letters];

/** config.json of a model of the plugin's family with 2 layers of 16 numbers a token. */
export const config = {
  model_type: 'parallel_llama', architectures: ['ParallelLlamaForCausalLM'], hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2,
  num_key_value_heads: 1, vocab_size: words.length, max_position_embeddings: 64, tie_word_embeddings: true, bos_token_id: 1, eos_token_id: 2,
};

/** The plugin as a run names it: a path, or the name of an installed package. */
export const plugin = fileURLToPath(new URL('../src/index.ts', import.meta.url));

/** Settings of a short run: letters in, the letters after them out. */
export function tinyRun(changes: Partial<RunInput> = {}): RunInput {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-parallel-'));
  const write = (name: string, value: object): void => writeFileSync(join(folder, name), JSON.stringify(value));
  write('config.json', config);
  write('tokenizer_config.json', { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' });
  write('tokenizer.json', {
    version: '1.0', normalizer: null, pre_tokenizer: { type: 'WhitespaceSplit' }, post_processor: null, decoder: null,
    added_tokens: words.slice(0, 3).map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
    model: { type: 'WordLevel', vocab: Object.fromEntries(words.map((word, id) => [word, id])), unk_token: '<unk>' },
  });
  const data = join(folder, 'train.jsonl');
  const letter = (i: number): string => letters[i % 26]!;
  writeFileSync(data, Array.from({ length: 40 }, (_, i) => `${JSON.stringify({ prompt: `${letter(i)} ${letter(i + 3)}`, completion: ` ${letter(i + 1)} ${letter(i + 4)}` })}\n`).join(''));
  return defineRun({
    model_name_or_path: folder, init: 'random', datasets: [{ path: data }], max_seq_length: 16, per_device_train_batch_size: 4, gradient_accumulation_steps: 2,
    plugins: [plugin], optim: 'lomo', clip_mode: 'none', learning_rate: 0.5, lr_scheduler_type: 'linear', warmup_steps: 0, output_dir: join(folder, 'run'), ...changes,
  });
}
