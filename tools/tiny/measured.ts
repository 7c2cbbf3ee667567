// The built `lomo` command in a process of its own, measured: its clock, its processor time, its largest resident size. And LLaMA-65B by its config.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cli } from './command.ts';

/** What a process printed and took. */
export interface Measured {
  readonly out: string;
  readonly seconds: number;
  /** All threads together: on a busy machine this, not the clock, is what a quiet one would take. */
  readonly processorSeconds: number;
  readonly peakBytes: number;
}

/** Runs `lomo args` to its end. Throws where it fails. */
export async function measured(args: readonly string[]): Promise<Measured> {
  const report = join(mkdtempSync(join(tmpdir(), 'lomo-measured-')), 'usage.json');
  const noted = `import { writeFileSync } from 'node:fs'; process.on('exit', () => writeFileSync(${JSON.stringify(report)}, JSON.stringify(process.resourceUsage())));`;
  const start = performance.now();
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', `data:text/javascript,${encodeURIComponent(noted)}`, cli, ...args], { maxBuffer: 2 ** 26 });
  const { maxRSS, userCPUTime, systemCPUTime } = JSON.parse(readFileSync(report, 'utf8')) as { maxRSS: number; userCPUTime: number; systemCPUTime: number };
  return { out: stdout, seconds: (performance.now() - start) / 1000, processorSeconds: (userCPUTime + systemCPUTime) / 1e6, peakBytes: 1024 * maxRSS };
}

/** A folder with LLaMA-65B's config.json, 65,285,660,672 numbers, and nothing else. */
export function llama65bFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-65b-'));
  const config = {
    model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 8192, intermediate_size: 22016, num_hidden_layers: 80, num_attention_heads: 64,
    num_key_value_heads: 64, vocab_size: 32000, max_position_embeddings: 2048, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu',
    attention_bias: false, mlp_bias: false, initializer_range: 0.02, tie_word_embeddings: false, bos_token_id: 1, eos_token_id: 2, torch_dtype: 'bfloat16',
  };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  return folder;
}
