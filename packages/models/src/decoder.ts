// A decoder as stages: the embedding, one stage a block, and the head with its loss. The families of this package all have this shape.
import type { Batch, Module, Parameter, Tensor } from '@lomo/tensor';
import { LomoError, attention, embedding, headLogits, linearCrossEntropy } from '@lomo/tensor';
import type { Build, DecodeStep, Reach, StageBlueprint } from './build.ts';
import { CausalStage } from './build.ts';
import type { ModelConfig } from './config/model.ts';
import { Block, RmsNorm } from './layers.ts';

const embeddingPath = 'model.embed_tokens.weight';
const headPath = 'lm_head.weight';

/** One decoder layer: [T, h] -> [T, h]. */
export interface DecoderBlock extends Module {
  forward(x: Tensor, reach: Reach): Tensor;
}

/** Makes the layer whose parameters' names begin with `path`: 'model.layers.3'. */
export type MakeBlock = (build: Build, path: string, at: { readonly config: ModelConfig; readonly layer: number }) => DecoderBlock;

/** LLaMA's own: attention, then the MLP. */
const llamaBlock: MakeBlock = (build, path, at) => new Block(build, path, at);

/** The stages of a configuration, in order: 'embedding', 'block 0', ..., 'head'. A family with another layer brings `makeBlock`. */
export function decoderStages(config: ModelConfig, makeBlock: MakeBlock = llamaBlock): readonly StageBlueprint[] {
  const blocks = config.windows.map((_, layer) => ({ name: `block ${layer}`, create: (build: Build) => new BlockStage(build, { config, layer, makeBlock }) }));
  return [
    { name: 'embedding', create: (build) => new EmbeddingStage(build, config) },
    ...blocks,
    { name: 'head', create: (build) => new HeadStage(build, config) },
  ];
}

/** Token ids -> [T, h]. */
export class EmbeddingStage extends CausalStage {
  readonly name = 'embedding';
  readonly weight: Parameter;

  constructor(build: Build, config: ModelConfig) {
    super();
    this.weight = build.parameter(embeddingPath, [config.vocabSize, config.hiddenSize], 'matrix');
  }

  forward(batch: Batch): Tensor {
    return embedding(batch.tokens, this.weight);
  }

  decode(step: DecodeStep): Tensor {
    return embedding(step.tokens, this.weight);
  }
}

/** One decoder layer as a stage. */
export class BlockStage extends CausalStage {
  readonly name: string;
  readonly block: DecoderBlock;

  constructor(build: Build, at: { readonly config: ModelConfig; readonly layer: number; readonly makeBlock: MakeBlock }) {
    super();
    this.name = `block ${at.layer}`;
    this.block = at.makeBlock(build, `model.layers.${at.layer}`, at);
  }

  forward(batch: Batch, arriving: Tensor | null): Tensor {
    return this.block.forward(arrived(this.name, arriving), packed(batch));
  }

  decode(step: DecodeStep, arriving: Tensor | null): Tensor {
    return this.block.forward(arrived(this.name, arriving), step.reach);
  }
}

/** Final norm, then the losses (forward) or the last token's logits (decode). */
export class HeadStage extends CausalStage {
  readonly name = 'head';
  readonly norm: RmsNorm;
  readonly weight: Parameter;

  constructor(build: Build, config: ModelConfig) {
    super();
    const { hiddenSize: h, vocabSize, tied, normEpsilon: epsilon } = config;
    this.norm = new RmsNorm(build, 'model.norm', { size: h, epsilon });
    this.weight = build.parameter(tied ? embeddingPath : headPath, [vocabSize, h], 'matrix');
    if (tied) build.aliases.set(headPath, embeddingPath);
  }

  forward(batch: Batch, arriving: Tensor | null): null {
    const { targets, step, tokenLoss, start, headForm } = batch;
    const x = this.norm.forward(arrived(this.name, arriving));
    linearCrossEntropy(x, this.weight, { targets, step, tokenLoss, start, form: headForm });
    return null;
  }

  /** logits f32 [1, vocabulary] of the last token, owned by the caller. */
  decode(_step: DecodeStep, arriving: Tensor | null): Tensor {
    const x = arrived(this.name, arriving);
    const tokens = x.shape[0]!;
    return this.logits(x.rows(tokens - 1, tokens));
  }

  /** x [R, h] -> logits f32 [R, vocabulary], owned by the caller. */
  logits(x: Tensor): Tensor {
    return headLogits(this.norm.forward(x), this.weight);
  }
}

function arrived(stage: string, tensor: Tensor | null): Tensor {
  if (tensor === null) throw new LomoError('StageError', `stage '${stage}' needs what the stage before it made`);
  return tensor;
}

/** Packed segments: each token sees the earlier ones of its own segment. */
function packed(batch: Batch): Reach {
  const { positions, starts, maxLength } = batch;
  return {
    positions,
    attend: (_, { q, k, v }, window) => attention(q, { k, v }, { cuQ: starts, cuK: starts, maxQ: maxLength, maxK: maxLength, window }),
  };
}
