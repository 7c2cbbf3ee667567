// Qwen3 (model_type 'qwen3'): RMSNorm on each head of q and k, a head size of its own, optional biases.
import type { JsonObject } from './json.ts';
import type { ModelConfig } from './config/model.ts';
import { decoderStages } from './decoder.ts';
import type { ModelFamily } from './languageModel.ts';
import { parseModelConfig } from './config/model.ts';
import { qwenWindows } from './qwen2.ts';

/** The family 'qwen3'. */
export const qwen3: ModelFamily<ModelConfig> = { modelType: 'qwen3', parseConfig: parseQwen3, stages: decoderStages };

/** Reads a qwen3 config.json. Throws LomoError 'UnsupportedConfig'. */
export function parseQwen3(json: JsonObject): ModelConfig {
  return parseModelConfig(json, 'qwen3', {
    architecture: 'Qwen3ForCausalLM',
    defaults: { kvHeads: 32, maxPositions: 32_768, headDim: 128 },
    read: (fields, layers) => {
      const bias = fields.flag('attention_bias', false);
      fields.only({ mlp_bias: [false, 'qwen3 has no MLP biases'] });
      return { qkvBias: bias, outputBias: bias, mlpBias: false, headNorm: true, windows: qwenWindows(json, fields, layers) };
    },
  });
}
