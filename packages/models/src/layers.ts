// Layers the families share. A layer's parameters carry their checkpoint names: 'model.layers.3.mlp.up_proj.weight'.
import type { Parameter, Tensor } from '@lomo/tensor';
import { Module, add, linear, rmsNorm, rope, siluMul } from '@lomo/tensor';
import type { Build, Reach, Rotary } from './build.ts';
import type { ModelConfig } from './config/model.ts';
import { inverseFrequencies } from './config/frequencies.ts';

/** y = x wT (+ bias): [T, inputs] -> [T, outputs]. */
export class Linear extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | null;

  constructor(build: Build, path: string, sizes: { readonly inputs: number; readonly outputs: number; readonly bias: boolean }) {
    super();
    this.weight = build.parameter(`${path}.weight`, [sizes.outputs, sizes.inputs], 'matrix');
    this.bias = sizes.bias ? build.parameter(`${path}.bias`, [sizes.outputs], 'bias') : null;
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}

/** Root-mean-square norm over the last dimension. */
export class RmsNorm extends Module {
  readonly weight: Parameter;
  private readonly epsilon: number;

  constructor(build: Build, path: string, sizes: { readonly size: number; readonly epsilon: number }) {
    super();
    this.weight = build.parameter(`${path}.weight`, [sizes.size], 'norm');
    this.epsilon = sizes.epsilon;
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.epsilon);
  }
}

/** down(silu(gate x) * (up x)): [T, h] -> [T, h]. */
export class Mlp extends Module {
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;

  constructor(build: Build, path: string, config: ModelConfig) {
    super();
    const { hiddenSize: h, intermediateSize: m, mlpBias: bias } = config;
    this.gate = new Linear(build, `${path}.gate_proj`, { inputs: h, outputs: m, bias });
    this.up = new Linear(build, `${path}.up_proj`, { inputs: h, outputs: m, bias });
    this.down = new Linear(build, `${path}.down_proj`, { inputs: m, outputs: h, bias });
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(x.device.scope(() => siluMul(this.gate.forward(x), this.up.forward(x))));
  }
}

/** Causal self-attention with RoPE, grouped queries, an optional window and optional norms on the heads of q and k. */
export class Attention extends Module {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly qNorm: RmsNorm | null;
  readonly kNorm: RmsNorm | null;
  private readonly layer: number;
  private readonly window: number;
  private readonly config: ModelConfig;
  private readonly rotary: Rotary;

  constructor(build: Build, path: string, at: { readonly config: ModelConfig; readonly layer: number }) {
    super();
    const { config, layer } = at;
    const { hiddenSize: h, headDim: d, heads, kvHeads, qkvBias, outputBias, normEpsilon: epsilon } = config;
    this.q = new Linear(build, `${path}.q_proj`, { inputs: h, outputs: heads * d, bias: qkvBias });
    this.k = new Linear(build, `${path}.k_proj`, { inputs: h, outputs: kvHeads * d, bias: qkvBias });
    this.v = new Linear(build, `${path}.v_proj`, { inputs: h, outputs: kvHeads * d, bias: qkvBias });
    this.o = new Linear(build, `${path}.o_proj`, { inputs: heads * d, outputs: h, bias: outputBias });
    this.qNorm = config.headNorm ? new RmsNorm(build, `${path}.q_norm`, { size: d, epsilon }) : null;
    this.kNorm = config.headNorm ? new RmsNorm(build, `${path}.k_norm`, { size: d, epsilon }) : null;
    this.layer = layer;
    this.window = config.windows[layer]!;
    this.config = config;
    this.rotary = build.rotary(() => inverseFrequencies(config.rope, build.maxLength ?? config.rope.maxPositions));
  }

  /** x [T, h] -> [T, h]. */
  forward(x: Tensor, reach: Reach): Tensor {
    const { heads, kvHeads, headDim } = this.config;
    const tokens = x.shape[0]!;
    const seen = x.device.scope(() => {
      const q = this.turn(this.q.forward(x).reshape([tokens, heads, headDim]), this.qNorm, reach);
      const k = this.turn(this.k.forward(x).reshape([tokens, kvHeads, headDim]), this.kNorm, reach);
      const v = this.v.forward(x).reshape([tokens, kvHeads, headDim]);
      return reach.attend(this.layer, { q, k, v }, this.window);
    });
    return this.o.forward(seen.reshape([tokens, heads * headDim]));
  }

  private turn(heads: Tensor, norm: RmsNorm | null, reach: Reach): Tensor {
    return rope(norm === null ? heads : norm.forward(heads), reach.positions, this.rotary);
  }
}

/** One decoder layer: x + attention(norm x), then + mlp(norm). [T, h] -> [T, h]. */
export class Block extends Module {
  readonly inputNorm: RmsNorm;
  readonly attention: Attention;
  readonly postNorm: RmsNorm;
  readonly mlp: Mlp;

  constructor(build: Build, path: string, at: { readonly config: ModelConfig; readonly layer: number }) {
    super();
    const sizes = { size: at.config.hiddenSize, epsilon: at.config.normEpsilon };
    this.inputNorm = new RmsNorm(build, `${path}.input_layernorm`, sizes);
    this.attention = new Attention(build, `${path}.self_attn`, at);
    this.postNorm = new RmsNorm(build, `${path}.post_attention_layernorm`, sizes);
    this.mlp = new Mlp(build, `${path}.mlp`, at.config);
  }

  forward(x: Tensor, reach: Reach): Tensor {
    const { device } = x;
    return device.scope(() => {
      const h = device.scope(() => add(x, this.attention.forward(this.inputNorm.forward(x), reach)));
      return device.scope(() => add(h, this.mlp.forward(this.postNorm.forward(h))));
    });
  }
}
