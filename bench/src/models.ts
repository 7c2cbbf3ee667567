// The models benches train: LLaMA-like shapes by name, the same as the peer's config files of these names.
import type { JsonObject } from '@lomo/models';

interface Size {
  readonly hidden: number;
  readonly feedForward: number;
  readonly layers: number;
  readonly heads: number;
  readonly vocabulary: number;
  readonly tied: boolean;
}

const sizes: Readonly<Record<string, Size>> = {
  tiny: { hidden: 64, feedForward: 176, layers: 2, heads: 2, vocabulary: 256, tied: false },
  '1m': { hidden: 128, feedForward: 344, layers: 4, heads: 4, vocabulary: 2048, tied: true },
  '15m': { hidden: 288, feedForward: 768, layers: 6, heads: 6, vocabulary: 32000, tied: true },
  '42m': { hidden: 512, feedForward: 1376, layers: 8, heads: 8, vocabulary: 32000, tied: true },
  '110m': { hidden: 768, feedForward: 2048, layers: 12, heads: 12, vocabulary: 32000, tied: false },
  '0.5b': { hidden: 1280, feedForward: 3456, layers: 22, heads: 20, vocabulary: 32000, tied: false },
  '7b': { hidden: 4096, feedForward: 11008, layers: 32, heads: 32, vocabulary: 32000, tied: false },
  '13b': { hidden: 5120, feedForward: 13824, layers: 40, heads: 40, vocabulary: 32000, tied: false },
  '30b': { hidden: 6656, feedForward: 17920, layers: 60, heads: 52, vocabulary: 32000, tied: false },
  '65b': { hidden: 8192, feedForward: 22016, layers: 80, heads: 64, vocabulary: 32000, tied: false },
};

/** The config.json of the model called `name`, with other values where `change` has them. Throws naming the models there are. */
export function modelConfig(name: string, change: JsonObject = {}): JsonObject {
  const size = sizes[name];
  if (size === undefined) throw new Error(`no model '${name}' (there are ${Object.keys(sizes).join(', ')})`);
  return {
    architectures: ['LlamaForCausalLM'], model_type: 'llama', hidden_size: size.hidden, intermediate_size: size.feedForward, num_hidden_layers: size.layers,
    num_attention_heads: size.heads, num_key_value_heads: size.heads, vocab_size: size.vocabulary, max_position_embeddings: 2048, rms_norm_eps: 1e-5,
    rope_theta: 10000, hidden_act: 'silu', attention_bias: false, mlp_bias: false, initializer_range: 0.02, tie_word_embeddings: size.tied,
    bos_token_id: 1, eos_token_id: 2, torch_dtype: 'float32', ...change,
  };
}
