// Two training steps of a tiny model on a backend: whether training runs there at all, and what it loads when it runs first.
import { createModel, initialise } from '@lomo/models';
import { lomo, Optimizer } from '@lomo/optim';
import { Program } from '@lomo/parallel';
import type { Backend, DType } from '@lomo/tensor';
import { Device } from '@lomo/tensor';

const config = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
  vocab_size: 32, max_position_embeddings: 32, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu', tie_word_embeddings: false,
};
const tokens = 16;
const room = 64 * 2 ** 20;

/** The losses of two steps over the same 16 tokens. Throws what the backend throws. */
export async function tinySteps(backend: Backend, dtype: DType): Promise<readonly [number, number]> {
  const device = new Device(backend, { bytes: room });
  try {
    const model = createModel(config, device, { dtype });
    initialise(model, 1);
    const optimizer = new Optimizer(device, model.parameters, { rule: lomo });
    const program = new Program(device, model, { microBatches: 1, tokens, maxSegments: 1, maxLength: tokens, keeps: () => true });
    const ids = Int32Array.from({ length: tokens }, (_, t) => (7 * t) % config.vocab_size);
    const batch = { tokens: ids, targets: ids.map((_, t) => (t + 1 < tokens ? ids[t + 1]! : -100)), positions: ids.map((_, t) => t), starts: Int32Array.of(0, tokens) };
    const losses: number[] = [];
    for (const step of [1, 2]) losses.push((await program.run({ step, seed: 1, lr: 0.1, batches: [batch], passes: optimizer.passes })).loss);
    return [losses[0]!, losses[1]!];
  } finally {
    device.free();
  }
}
