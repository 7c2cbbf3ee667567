// What a LLaMA-like model is, read from config.json; the families differ only in the few fields they pass on.
import type { DType } from '@lomo/tensor';
import type { JsonObject } from '../json.ts';
import { Fields } from './fields.ts';
import type { RopeConfig } from './rope.ts';
import { parseRope } from './rope.ts';

/** One decoder-only model with RMSNorm, RoPE, grouped-query attention and a gated SiLU MLP. */
export interface ModelConfig {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly normEpsilon: number;
  /** True when the head's matrix is the embedding's. */
  readonly tied: boolean;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** RMSNorm over each head of q and k, before RoPE. */
  readonly headNorm: boolean;
  /** Per layer: keys a query sees, itself included; 0 for all of them. */
  readonly windows: readonly number[];
  readonly rope: RopeConfig;
  /** Standard deviation of fresh weights. */
  readonly initializerRange: number;
  /** What config.json says the weights are stored in, if it does. */
  readonly storedDtype: DType | null;
  readonly bosIds: readonly number[];
  readonly eosIds: readonly number[];
  /** config.json as it was read. */
  readonly source: JsonObject;
}

/** What a family adds to the shared fields. */
export interface FamilyTraits {
  readonly architecture: string;
  /** The library's value where the file is silent. */
  readonly defaults: { readonly kvHeads: number | 'heads'; readonly maxPositions: number; readonly headDim: number | 'hidden / heads' };
  /** Reads the family's own fields. */
  read(fields: Fields, layers: number): Pick<ModelConfig, 'qkvBias' | 'outputBias' | 'mlpBias' | 'headNorm' | 'windows'>;
}

/** Most layers a model may have: the deepest known ones have some hundreds, and everything a layer has is listed. */
export const layerLimit = 10_000;

const dtypes: Readonly<Record<string, DType>> = { float32: 'f32', bfloat16: 'bf16', float16: 'f16' };

/** Reads config.json of a family, strictly: LomoError 'UnsupportedConfig' for whatever is not understood. */
export function parseModelConfig(json: JsonObject, modelType: string, traits: FamilyTraits): ModelConfig {
  const fields = new Fields(json);
  if (fields.text('model_type') !== modelType) throw fields.refuse('model_type', `expected ${JSON.stringify(modelType)}`);
  const architectures = fields.list('architectures');
  if (architectures !== undefined && architectures.some((a) => a !== traits.architecture)) {
    throw fields.refuse('architectures', `only ${traits.architecture} is supported`);
  }
  const hiddenSize = fields.size('hidden_size');
  const layers = fields.size('num_hidden_layers');
  if (layers > layerLimit) throw fields.refuse('num_hidden_layers', `at most ${layerLimit} layers`);
  const heads = fields.size('num_attention_heads');
  const { defaults } = traits;
  const kvHeads = fields.size('num_key_value_heads', defaults.kvHeads === 'heads' ? heads : defaults.kvHeads);
  if (heads % kvHeads !== 0) throw fields.refuse('num_key_value_heads', `does not divide num_attention_heads (${heads})`);
  const derivedDim = defaults.headDim === 'hidden / heads' ? hiddenSize / heads : defaults.headDim;
  if (!fields.has('head_dim') && !Number.isInteger(derivedDim)) throw fields.refuse('hidden_size', `not a multiple of num_attention_heads (${heads})`);
  const headDim = fields.size('head_dim', derivedDim);
  const maxPositions = fields.size('max_position_embeddings', defaults.maxPositions);
  const act = fields.text('hidden_act') ?? 'silu';
  if (act !== 'silu' && act !== 'swish') throw fields.refuse('hidden_act', "only 'silu' is implemented");
  fields.only(mustBe);
  fields.harmless(harmlessFields);
  const config: ModelConfig = {
    modelType,
    vocabSize: fields.size('vocab_size'),
    hiddenSize,
    intermediateSize: fields.size('intermediate_size'),
    layers,
    heads,
    kvHeads,
    headDim,
    normEpsilon: fields.number('rms_norm_eps', { above: 0, fallback: 1e-6 }),
    tied: fields.flag('tie_word_embeddings', false),
    ...traits.read(fields, layers),
    rope: parseRope(fields, { headDim, maxPositions }),
    initializerRange: fields.number('initializer_range', { above: 0, fallback: 0.02 }),
    storedDtype: storedDtype(fields),
    bosIds: fields.ids('bos_token_id'),
    eosIds: fields.ids('eos_token_id'),
    source: json,
  };
  fields.finish();
  return config;
}

/** Windows from `layer_types`, or by `fallback(layer)` where the file has none. */
export function windowsOf(fields: Fields, layers: number, choose: { readonly window: number; readonly slides: (layer: number) => boolean }): readonly number[] {
  const types = fields.list('layer_types');
  if (types !== undefined && types.length !== layers) throw fields.refuse('layer_types', `expected ${layers} entries, one a layer`);
  return Array.from({ length: layers }, (_, layer) => {
    const type = types?.[layer] ?? (choose.slides(layer) ? 'sliding_attention' : 'full_attention');
    if (type === 'full_attention') return 0;
    if (type !== 'sliding_attention') throw fields.refuse('layer_types', "known: 'full_attention', 'sliding_attention'");
    if (choose.window === 0) throw fields.refuse('layer_types', 'a sliding layer without a sliding window');
    return choose.window;
  });
}

function storedDtype(fields: Fields): DType | null {
  const names = ['torch_dtype', 'dtype'] as const;
  const [classic, modern] = names.map((name) => fields.text(name)?.replace(/^torch\./, ''));
  if (classic !== undefined && modern !== undefined && classic !== modern) throw fields.refuse('dtype', `contradicts torch_dtype = ${JSON.stringify(classic)}`);
  const name = modern ?? classic;
  if (name === undefined || name === 'auto') return null;
  const dtype = Object.hasOwn(dtypes, name) ? dtypes[name] : undefined;
  if (dtype === undefined) throw fields.refuse(modern === undefined ? 'torch_dtype' : 'dtype', `known: ${Object.keys(dtypes).join(', ')}`);
  return dtype;
}

const mustBe = {
  attention_dropout: [0, 'dropout on attention weights would be needed in training'],
  quantization_config: [null, 'the weights are quantized; full-parameter training needs real ones'],
  auto_map: [null, 'the model brings Python code of its own'],
  is_encoder_decoder: [false, 'the model is not decoder-only'],
  add_cross_attention: [false, 'the model is not decoder-only'],
  tie_encoder_decoder: [false, 'the model is not decoder-only'],
  cross_attention_hidden_size: [null, 'the model is not decoder-only'],
  is_decoder: [false, 'transformers ignores it for these families and cross attention would need it'],
  pruned_heads: [{}, 'heads are pruned'],
  chunk_size_feed_forward: [0, 'the MLP is computed in chunks'],
  rope_interleaved: [false, 'RoPE pairs neighbours instead of halves'],
  use_mrope: [false, 'RoPE has several position axes'],
  neftune_noise_alpha: [null, 'noise on embeddings in training'],
  per_layer_config: [null, 'layers differ'],
  block_configs: [null, 'layers differ'],
} as const;

const about = { run: 'how Python runs the model', generation: 'defaults of sampling, kept in generation_config.json', origin: 'where the file came from', labels: 'classification heads only', tokens: 'token ids that no layer reads' };
const harmlessFields: Readonly<Record<string, string>> = {
  use_cache: about.run,
  use_return_dict: about.run,
  return_dict: about.run,
  output_attentions: about.run,
  output_hidden_states: about.run,
  torchscript: about.run,
  use_bfloat16: about.run,
  _attn_implementation: about.run,
  attn_implementation: about.run,
  _attn_implementation_autoset: about.run,
  _flash_attn_2_enabled: about.run,
  cache_implementation: about.run,
  pretraining_tp: 'slices the same products',
  tf_legacy_loss: about.run,
  gradient_checkpointing: about.run,
  transformers_version: about.origin,
  _name_or_path: about.origin,
  name_or_path: about.origin,
  unsloth_version: about.origin,
  unsloth_fixed: about.origin,
  is_llama_config: about.origin,
  'transformers.js_config': about.origin,
  tokenizer_class: 'read with the tokenizer',
  model_max_length: 'read with the tokenizer',
  max_sequence_length: 'an old copy of max_position_embeddings',
  pad_token_id: about.tokens,
  unk_token_id: about.tokens,
  sep_token_id: about.tokens,
  decoder_start_token_id: about.tokens,
  id2label: about.labels,
  label2id: about.labels,
  num_labels: about.labels,
  problem_type: about.labels,
  finetuning_task: about.labels,
  task_specific_params: about.labels,
  prefix: about.generation,
  max_length: about.generation,
  max_new_tokens: about.generation,
  min_length: about.generation,
  do_sample: about.generation,
  early_stopping: about.generation,
  num_beams: about.generation,
  num_beam_groups: about.generation,
  diversity_penalty: about.generation,
  temperature: about.generation,
  top_k: about.generation,
  top_p: about.generation,
  typical_p: about.generation,
  repetition_penalty: about.generation,
  length_penalty: about.generation,
  no_repeat_ngram_size: about.generation,
  encoder_no_repeat_ngram_size: about.generation,
  bad_words_ids: about.generation,
  num_return_sequences: about.generation,
  output_scores: about.generation,
  return_dict_in_generate: about.generation,
  forced_bos_token_id: about.generation,
  forced_eos_token_id: about.generation,
  remove_invalid_values: about.generation,
  exponential_decay_length_penalty: about.generation,
  suppress_tokens: about.generation,
  begin_suppress_tokens: about.generation,
};
