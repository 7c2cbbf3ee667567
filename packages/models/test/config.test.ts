// Configurations of the four families: both spellings, strictness, windows, and RoPE against transformers' own numbers.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { familyOf, inverseFrequencies, parseLlama, parseMistral, parseQwen2, parseQwen3, readConfig } from '../src/index.ts';
import type { JsonObject, ModelConfig } from '../src/index.ts';
import { golden, hasGolden, hasStories, stories } from './folders.ts';

const base: JsonObject = { vocab_size: 64, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2 };
const parsers = { llama: parseLlama, mistral: parseMistral, qwen2: parseQwen2, qwen3: parseQwen3 };
const parse = (type: keyof typeof parsers, changes: JsonObject = {}): ModelConfig => parsers[type]({ model_type: type, ...base, ...changes });

describe('RoPE', () => {
  interface Case {
    readonly name: string;
    readonly config: JsonObject;
    readonly length: number;
    readonly values: readonly number[];
    readonly scale: number;
  }
  const { cases } = JSON.parse(readFileSync(new URL('fixtures/rope.json', import.meta.url), 'utf8')) as { cases: readonly Case[] };

  it.each(cases)('$name is what transformers computes', ({ config, length, values, scale }) => {
    const found = inverseFrequencies(parseLlama(config).rope, length);
    expect(found.values.length).toBe(values.length);
    found.values.forEach((v, i) => expect(Math.abs(v / values[i]! - 1)).toBeLessThan(1e-13));
    expect(Math.abs(found.scale / scale - 1)).toBeLessThan(1e-14);
  });

  it('covers every scaling', () => {
    const types = new Set(cases.map((c) => parseLlama(c.config).rope.scaling.type));
    expect([...types].sort()).toEqual(['default', 'dynamic', 'linear', 'llama3', 'longrope', 'yarn']);
  });

  it('rotates only the first part of a head with partial_rotary_factor, in either place', () => {
    for (const changes of [{ partial_rotary_factor: 0.5 }, { rope_parameters: { rope_type: 'default', rope_theta: 10000, partial_rotary_factor: 0.5 } }]) {
      const { rope } = parse('llama', changes);
      expect(rope.rotaryDim).toBe(8);
      expect([...inverseFrequencies(rope, 10).values]).toEqual([0, 1, 2, 3].map((j) => 10000 ** (-j / 4)));
    }
  });

  it.each<[string, JsonObject, RegExp]>([
    ['an unknown type', { rope_scaling: { rope_type: 'mrope' } }, /rope_scaling\.rope_type = "mrope": known: default, linear/],
    ['a name of the prototype', { rope_scaling: { type: 'constructor' } }, /known: default/],
    ['two types', { rope_scaling: { rope_type: 'linear', type: 'dynamic', factor: 2 } }, /contradicts rope_type/],
    ['two spellings', { rope_scaling: { type: 'linear', factor: 2 }, rope_parameters: { rope_type: 'default' } }, /contradicts rope_parameters/],
    ['two thetas', { rope_theta: 1e4, rope_parameters: { rope_theta: 1e6 } }, /rope_theta = 10000: contradicts 1000000/],
    ['no factor', { rope_scaling: { type: 'linear' } }, /rope_scaling\.factor = missing/],
    ['a factor of text', { rope_scaling: { type: 'linear', factor: '2' } }, /expected a finite number/],
    ['an unknown setting', { rope_scaling: { type: 'linear', factor: 2, mrope_section: [1] } }, /rope_scaling\.mrope_section = \[1\]: unknown field/],
    ['a short list', { rope_scaling: { type: 'longrope', long_factor: [1], short_factor: [1] } }, /long_factor = \[1\]: expected 8 positive/],
    ['an odd head', { head_dim: 7 }, /RoPE needs an even number/],
    ['one RoPE a layer type', { rope_parameters: { full_attention: { rope_type: 'default' } } }, /per layer type/],
    ['dynamic of another length', { rope_scaling: { type: 'dynamic', factor: 2, original_max_position_embeddings: 99 } }, /make them equal/],
    ['a reversed band', { rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 1, original_max_position_embeddings: 64 } }, /expected more than low_freq_factor/],
  ])('refuses %s', (_, changes, message) => {
    expect(() => parse('llama', changes)).toThrow(message);
  });
});

describe('strictness', () => {
  it.each<[keyof typeof parsers, JsonObject, RegExp]>([
    ['llama', { qk_layernorm: true }, /^config: qk_layernorm = true: unknown field; it may change the maths/],
    ['llama', { hidden_act: 'gelu' }, /hidden_act = "gelu": only 'silu'/],
    ['llama', { attention_dropout: 0.1 }, /attention_dropout = 0\.1: dropout/],
    ['llama', { quantization_config: { quant_method: 'gptq' } }, /quantization_config = \{"quant_method":"gptq"\}: the weights are quantized/],
    ['llama', { auto_map: { AutoModel: 'x.Y' } }, /Python code/],
    ['llama', { architectures: ['LlamaForSequenceClassification'] }, /only LlamaForCausalLM/],
    ['llama', { num_key_value_heads: 3 }, /does not divide/],
    ['llama', { num_attention_heads: 6 }, /not a multiple/],
    ['llama', { vocab_size: 1.5 }, /vocab_size = 1\.5: expected a positive integer/],
    ['llama', { hidden_size: 2 ** 40 }, /expected a positive integer/],
    ['llama', { rms_norm_eps: 0 }, /rms_norm_eps/],
    ['llama', { tie_word_embeddings: 'yes' }, /expected true or false/],
    ['llama', { torch_dtype: 'float64' }, /torch_dtype = "float64": known/],
    ['llama', { torch_dtype: 'float32', dtype: 'bfloat16' }, /contradicts torch_dtype/],
    ['llama', { sliding_window: 128 }, /sliding_window = 128: transformers ignores it/],
    ['llama', { layer_types: ['full_attention', 'sliding_attention', 'full_attention', 'full_attention'] }, /a sliding layer without a sliding window/],
    ['llama', { eos_token_id: 'x' }, /token id/],
    ['llama', { model_type: 'gpt2' }, /expected "llama"/],
    ['mistral', { attention_bias: true }, /mistral has no biases/],
    ['mistral', { sliding_window: 5, layer_types: ['full_attention', 'sliding_attention', 'full_attention', 'full_attention'] }, /same window/],
    ['qwen2', { attention_bias: false }, /always has biases/],
    ['qwen2', { layer_types: ['full_attention'] }, /expected 4 entries/],
    ['qwen2', { layer_types: ['full_attention', 'full_attention', 'full_attention', 'linear_attention'] }, /known: 'full_attention'/],
    ['qwen2', { use_mrope: true }, /several position axes/],
    ['qwen3', { max_window_layers: -1 }, /count of layers/],
  ])('%s refuses %j', (type, changes, message) => {
    try {
      parse(type, changes);
      expect.unreachable('it was accepted');
    } catch (error) {
      expect(error).toMatchObject({ code: 'UnsupportedConfig' });
      expect((error as Error).message).toMatch(message);
    }
  });

  it('names a missing size', () => {
    const { vocab_size: _, ...rest } = base;
    expect(() => parseLlama({ model_type: 'llama', ...rest })).toThrow(/vocab_size = missing/);
  });

  it('accepts what changes nothing', () => {
    const config = parse('llama', {
      use_cache: true, transformers_version: '5.23.0', _name_or_path: 'x', pretraining_tp: 1, attention_dropout: 0, quantization_config: null, pad_token_id: 0, rope_scaling: null,
      temperature: 0.7, hidden_act: 'swish', torch_dtype: 'torch.bfloat16', eos_token_id: [1, 2], something_null: null,
    });
    expect(config).toMatchObject({ storedDtype: 'bf16', eosIds: [1, 2], kvHeads: 2, headDim: 16, windows: [0, 0, 0, 0], normEpsilon: 1e-6, tied: false, initializerRange: 0.02 });
  });

  it('finds families and names the known ones', () => {
    const families = [{ modelType: 'llama', parseConfig: parseLlama }];
    expect(familyOf({ model_type: 'llama' }, families)).toBe(families[0]);
    expect(() => familyOf({ model_type: 'gpt2' }, families)).toThrow(/model_type = "gpt2": known: llama/);
    expect(() => familyOf({}, families)).toThrow(/model_type = missing/);
  });
});

describe('families', () => {
  it("take transformers' defaults where the file is silent", () => {
    const { num_key_value_heads: _, ...silent }: JsonObject = { ...base, num_attention_heads: 32, hidden_size: 1024 };
    expect(parseLlama({ model_type: 'llama', ...silent })).toMatchObject({ kvHeads: 32, headDim: 32, rope: { theta: 10000, maxPositions: 2048 } });
    expect(parseMistral({ model_type: 'mistral', ...silent })).toMatchObject({ kvHeads: 8, rope: { maxPositions: 131072 } });
    expect(parseQwen2({ model_type: 'qwen2', ...silent })).toMatchObject({ kvHeads: 32, rope: { maxPositions: 32768 } });
  });

  it('llama takes biases from its flags', () => {
    expect(parse('llama', { attention_bias: true, mlp_bias: true, head_dim: 32 })).toMatchObject({ qkvBias: true, outputBias: true, mlpBias: true, headDim: 32 });
  });

  it('mistral slides everywhere unless the window is null', () => {
    expect(parse('mistral', { sliding_window: 7 }).windows).toEqual([7, 7, 7, 7]);
    expect(parse('mistral', { sliding_window: null }).windows).toEqual([0, 0, 0, 0]);
    expect(parse('mistral').windows).toEqual([4096, 4096, 4096, 4096]);
  });

  it.each(['qwen2', 'qwen3'] as const)('%s slides only when told, from max_window_layers on or by layer_types', (type) => {
    const on = { sliding_window: 7, max_window_layers: 3 };
    expect(parse(type, on).windows).toEqual([0, 0, 0, 0]);
    expect(parse(type, { ...on, use_sliding_window: true }).windows).toEqual([0, 0, 0, 7]);
    expect(parse(type, { ...on, use_sliding_window: true, max_window_layers: 0 }).windows).toEqual([7, 7, 7, 7]);
    const layerTypes = ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention'];
    expect(parse(type, { ...on, use_sliding_window: true, layer_types: layerTypes }).windows).toEqual([7, 0, 7, 0]);
  });

  it('qwen2 has q, k, v biases; qwen3 head norms and a head size of its own', () => {
    expect(parse('qwen2')).toMatchObject({ qkvBias: true, outputBias: false, headNorm: false, headDim: 16 });
    expect(parse('qwen3')).toMatchObject({ qkvBias: false, outputBias: false, headNorm: true, headDim: 128 });
    expect(parse('qwen3', { attention_bias: true })).toMatchObject({ qkvBias: true, outputBias: true });
  });

  it.skipIf(!hasGolden)('reads the golden folders', async () => {
    const read = async (type: keyof typeof parsers) => parsers[type](await readConfig(join(golden, 'models', type)));
    expect(await read('llama')).toMatchObject({ headDim: 8, kvHeads: 2, tied: false, rope: { theta: 500, scaling: { type: 'llama3' } }, storedDtype: 'f32' });
    expect(await read('mistral')).toMatchObject({ windows: [7, 7], tied: false });
    expect(await read('qwen2')).toMatchObject({ windows: [0, 0], tied: true, qkvBias: true });
    expect(await read('qwen3')).toMatchObject({ headDim: 10, headNorm: true, rope: { theta: 1e6 }, storedDtype: 'f32' });
  });

  it.skipIf(!hasStories)('reads stories260k', async () => {
    expect(parseLlama(await readConfig(stories))).toMatchObject({ hiddenSize: 64, heads: 8, kvHeads: 4, tied: true, vocabSize: 512 });
  });
});
