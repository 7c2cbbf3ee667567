// Mistral (model_type 'mistral'): no biases, and a sliding window in every layer unless sliding_window is null.
import type { JsonObject } from './json.ts';
import type { ModelConfig } from './config/model.ts';
import { decoderStages } from './decoder.ts';
import type { ModelFamily } from './languageModel.ts';
import { parseModelConfig, windowsOf } from './config/model.ts';

/** The family 'mistral'. */
export const mistral: ModelFamily<ModelConfig> = { modelType: 'mistral', parseConfig: parseMistral, stages: decoderStages };

/** Reads a mistral config.json. Throws LomoError 'UnsupportedConfig'. */
export function parseMistral(json: JsonObject): ModelConfig {
  return parseModelConfig(json, 'mistral', {
    architecture: 'MistralForCausalLM',
    defaults: { kvHeads: 8, maxPositions: 131_072, headDim: 'hidden / heads' },
    read: (fields, layers) => {
      fields.only({ attention_bias: [false, 'mistral has no biases'], mlp_bias: [false, 'mistral has no biases'], use_sliding_window: [true, 'transformers ignores it for mistral'] });
      // Absent means 4096 to transformers; only an explicit null means full attention.
      const window = json['sliding_window'] === null ? 0 : fields.size('sliding_window', 4096);
      const windows = windowsOf(fields, layers, { window, slides: () => window > 0 });
      if (windows.some((w) => w !== window)) throw fields.refuse('layer_types', 'transformers gives every mistral layer the same window');
      return { qkvBias: false, outputBias: false, mlpBias: false, headNorm: false, windows };
    },
  });
}
