// Loading keeps to its two buffers: what piles up until V8 collects it would still be there when training begins.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Device, DryBackend, numel, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { createModel, loadWeights, writeSafetensors } from '../src/index.ts';

const mebibyte = 2 ** 20;
const json = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 1024, intermediate_size: 2048, num_hidden_layers: 1, num_attention_heads: 8, num_key_value_heads: 8, vocab_size: 4096,
  max_position_embeddings: 64, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu', tie_word_embeddings: false, bos_token_id: 1, eos_token_id: 2,
};

/** No data; every write samples what buffers the process holds. */
class Sampling extends DryBackend {
  most = 0;
  override write(): void {
    this.most = Math.max(this.most, process.memoryUsage().arrayBuffers);
  }
}

test.each(['f32', 'bf16'] as const)('a file of 64 MiB is loaded as %s within 10 MiB', async (dtype) => {
  const backend = new Sampling(new ReferenceBackend({ ops: tensorOps }));
  const model = createModel(json, new Device(backend, { bytes: Infinity }), { dtype });
  const folder = mkdtempSync(join(tmpdir(), 'lomo-models-'));
  try {
    writeFileSync(join(folder, 'config.json'), JSON.stringify(json));
    const zeros = new Uint8Array(mebibyte);
    const sources = model.parameters.map(({ path: name, shape }) => ({
      name, shape, dtype: 'F32' as const,
      *slices() {
        for (let left = 4 * numel(shape); left > 0; left -= zeros.byteLength) yield zeros.subarray(0, Math.min(left, zeros.byteLength));
      },
    }));
    expect(4 * model.size).toBeGreaterThan(64 * mebibyte);
    await writeSafetensors(join(folder, 'model.safetensors'), sources);
    backend.most = 0;
    const before = process.memoryUsage().arrayBuffers;
    await loadWeights(model, folder);
    expect(backend.most).toBeGreaterThan(0);
    expect((backend.most - before) / mebibyte).toBeLessThan(10);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
