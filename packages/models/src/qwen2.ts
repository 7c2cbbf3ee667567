// Qwen2 and Qwen2.5 (model_type 'qwen2'): biases on q, k, v; sliding windows only in layers that say so.
import type { JsonObject } from './json.ts';
import type { Fields } from './config/fields.ts';
import type { ModelConfig } from './config/model.ts';
import { decoderStages } from './decoder.ts';
import type { ModelFamily } from './languageModel.ts';
import { parseModelConfig, windowsOf } from './config/model.ts';

/** The family 'qwen2'. */
export const qwen2: ModelFamily<ModelConfig> = { modelType: 'qwen2', parseConfig: parseQwen2, stages: decoderStages };

/** Reads a qwen2 config.json. Throws LomoError 'UnsupportedConfig'. */
export function parseQwen2(json: JsonObject): ModelConfig {
  return parseModelConfig(json, 'qwen2', {
    architecture: 'Qwen2ForCausalLM',
    defaults: { kvHeads: 32, maxPositions: 32_768, headDim: 'hidden / heads' },
    read: (fields, layers) => {
      fields.only({ attention_bias: [true, 'qwen2 always has biases on q, k, v'], mlp_bias: [false, 'qwen2 has no MLP biases'] });
      return { qkvBias: true, outputBias: false, mlpBias: false, headNorm: false, windows: qwenWindows(json, fields, layers) };
    },
  });
}

/** Windows of the Qwen families: from layer `max_window_layers` on, and only with `use_sliding_window`. */
export function qwenWindows(json: JsonObject, fields: Fields, layers: number): readonly number[] {
  const used = fields.flag('use_sliding_window', false);
  const declared = json['sliding_window'] === null ? 0 : fields.size('sliding_window', 4096);
  const window = used ? declared : 0;
  const raw = fields.raw('max_window_layers') ?? 28;
  if (typeof raw !== 'number' || !Number.isSafeInteger(raw) || raw < 0) throw fields.refuse('max_window_layers', 'expected a count of layers');
  return windowsOf(fields, layers, { window, slides: (layer) => window > 0 && layer >= raw });
}
