// A model family as a plugin: LLaMA whose attention and MLP read the same norm and are added together, as in GPT-J and PaLM.
import { Attention, Mlp, RmsNorm, decoderStages, parseModelConfig, windowsOf } from '@lomo/models';
import type { Build, DecoderBlock, JsonObject, ModelConfig, ModelFamily, Reach } from '@lomo/models';
import { Module, add } from '@lomo/tensor';
import type { Tensor } from '@lomo/tensor';

/** x + attention(norm x) + mlp(norm x): one norm a layer, and the two halves could run side by side. [T, h] -> [T, h]. */
export class ParallelBlock extends Module implements DecoderBlock {
  readonly norm: RmsNorm;
  readonly attention: Attention;
  readonly mlp: Mlp;

  constructor(build: Build, path: string, at: { readonly config: ModelConfig; readonly layer: number }) {
    super();
    const { hiddenSize: size, normEpsilon: epsilon } = at.config;
    this.norm = new RmsNorm(build, `${path}.input_layernorm`, { size, epsilon });
    this.attention = new Attention(build, `${path}.self_attn`, at);
    this.mlp = new Mlp(build, `${path}.mlp`, at.config);
  }

  forward(x: Tensor, reach: Reach): Tensor {
    return x.device.scope(() => {
      const n = this.norm.forward(x);
      return add(x, add(this.attention.forward(n, reach), this.mlp.forward(n)));
    });
  }
}

/** Reads a config.json of this family: LLaMA's fields under another name. Throws LomoError 'UnsupportedConfig' for what it does not know. */
function parseConfig(json: JsonObject): ModelConfig {
  return parseModelConfig(json, 'parallel_llama', {
    architecture: 'ParallelLlamaForCausalLM',
    defaults: { kvHeads: 'heads', maxPositions: 2048, headDim: 'hidden / heads' },
    read: (fields, layers) => {
      const bias = fields.flag('attention_bias', false);
      const windows = windowsOf(fields, layers, { window: 0, slides: () => false });
      return { qkvBias: bias, outputBias: bias, mlpBias: fields.flag('mlp_bias', false), headNorm: false, windows };
    },
  });
}

/** The family 'parallel_llama'. */
export const parallelLlama: ModelFamily<ModelConfig> = {
  modelType: 'parallel_llama',
  parseConfig,
  stages: (config) => decoderStages(config, (build, path, at) => new ParallelBlock(build, path, at)),
};

/** What lomo looks for in a plugin. */
export const families: readonly ModelFamily[] = [parallelLlama];
