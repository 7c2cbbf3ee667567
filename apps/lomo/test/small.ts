// A small random LLaMA on a backend and micro-batches for it: what tests of the whole machinery train.
import { createModel, initialise } from '@lomo/models';
import { lomo, Optimizer } from '@lomo/optim';
import type { Clip, Rounding, Rule, Spill } from '@lomo/optim';
import type { ByteStore, HostBatch, ProgramOptions } from '@lomo/parallel';
import { Program, Residency } from '@lomo/parallel';
import type { Backend, DType } from '@lomo/tensor';
import { Device, Random } from '@lomo/tensor';

/** Settings of the model that tests may change. */
export const smallConfig = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 64, intermediate_size: 160, num_hidden_layers: 2, num_attention_heads: 4,
  num_key_value_heads: 2, vocab_size: 1500, max_position_embeddings: 512, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu', tie_word_embeddings: true,
};
export const segment = 64;

/** `tokens` tokens cut into `count` micro-batches of whole segments; the same stream for every cut. */
export function cut(tokens: number, count: number, options: { readonly seed: number; readonly vocabulary?: number; readonly length?: number }): HostBatch[] {
  const { seed, vocabulary = smallConfig.vocab_size, length = segment } = options;
  const random = new Random(seed);
  const ids = Int32Array.from(random.ints(tokens, vocabulary));
  const targets = ids.map((_, t) => (t % length === length - 1 || t % 7 === 0 ? -100 : ids[t + 1]!));
  const size = tokens / count;
  return Array.from({ length: count }, (_, m) => ({
    tokens: ids.slice(m * size, (m + 1) * size),
    targets: targets.slice(m * size, (m + 1) * size),
    positions: Int32Array.from({ length: size }, (_, t) => t % length),
    starts: Int32Array.from({ length: size / length + 1 }, (_, s) => s * length),
  }));
}

export interface SmallOptions extends Partial<Pick<ProgramOptions, 'accumulate' | 'headForm'>> {
  readonly bytes?: number;
  /** A device made elsewhere: a plan's. */
  readonly on?: Device;
  readonly tileBytes?: number;
  readonly rule?: Rule;
  readonly clip?: Clip;
  /** Where gradients wait for the norm; without it, a second backward. */
  readonly spill?: Spill;
  /** Where weights are while their stage is not on the device; without it they stay. They are nobody's until they are initialised. */
  readonly stream?: ByteStore;
  /** Where boundary activations wait; without it, on the device. */
  readonly offload?: ByteStore;
  readonly keeps?: boolean;
  /** Of the weights; f32 unless given. */
  readonly dtype?: DType;
  /** Of 16-bit weights; stochastic unless given. */
  readonly rounding?: Rounding;
  readonly telemetry?: boolean;
  /** Tokens of a micro-batch. */
  readonly tokens: number;
  readonly microBatches: number;
  /** Tokens of a segment: `segment` unless given. */
  readonly length?: number;
  readonly config?: Readonly<Record<string, boolean | number>>;
}

/** Of the weights. */
export const smallSeed = 7;

/** Device, model, optimizer and program; weights are the seed's. */
export function small(backend: Backend, options: SmallOptions) {
  const { stream, offload, bytes = 96 * 2 ** 20, tileBytes, rule = lomo, clip, keeps = false, tokens, microBatches, config = {}, accumulate, headForm, spill, dtype = 'f32', rounding = 'stochastic', telemetry = false, length = segment } = options;
  const device = options.on ?? new Device(backend, { bytes, ...(tileBytes === undefined ? {} : { tileBytes }) });
  const model = createModel({ ...smallConfig, ...config }, device, { dtype, away: stream !== undefined });
  const residency = stream === undefined ? null : new Residency(device, model, stream);
  model.residence = residency;
  if (residency === null) initialise(model, smallSeed);
  const optimizer = new Optimizer(device, model.parameters, { rule, rounding, telemetry, weightDecay: 0.01, ...(clip === undefined ? {} : { clip }), ...(spill === undefined ? {} : { spill }) });
  const program = new Program(device, model, {
    microBatches,
    tokens,
    maxSegments: tokens / length,
    maxLength: length,
    keeps: (stage) => keeps && stage < model.stages.length - 1,
    ...(accumulate === undefined ? {} : { accumulate }),
    ...(headForm === undefined ? {} : { headForm }),
    ...(residency === null ? {} : { residency }),
    ...(offload === undefined ? {} : { offload }),
  });
  return { device, model, optimizer, program };
}
