// LLaMA (model_type 'llama'): optional biases, every RoPE scaling, full attention in every layer.
import type { JsonObject } from './json.ts';
import type { ModelConfig } from './config/model.ts';
import { decoderStages } from './decoder.ts';
import type { ModelFamily } from './languageModel.ts';
import { parseModelConfig, windowsOf } from './config/model.ts';

/** The family 'llama'. */
export const llama: ModelFamily<ModelConfig> = { modelType: 'llama', parseConfig: parseLlama, stages: decoderStages };

/** Reads a llama config.json. Throws LomoError 'UnsupportedConfig'. */
export function parseLlama(json: JsonObject): ModelConfig {
  return parseModelConfig(json, 'llama', {
    architecture: 'LlamaForCausalLM',
    defaults: { kvHeads: 'heads', maxPositions: 2048, headDim: 'hidden / heads' },
    read: (fields, layers) => {
      const bias = fields.flag('attention_bias', false);
      fields.only({ sliding_window: [null, 'transformers ignores it for llama'], use_sliding_window: [false, 'transformers ignores it for llama'] });
      return {
        qkvBias: bias,
        outputBias: bias,
        mlpBias: fields.flag('mlp_bias', false),
        headNorm: false,
        windows: windowsOf(fields, layers, { window: 0, slides: () => false }),
      };
    },
  });
}
