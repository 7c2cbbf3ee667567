// f16 weights beside f32 activations: the model is the f32 one of the rounded weights, to the bit; files of any real type come and go.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fromF16, toF16 } from '@lomo/tensor';
import type { DType } from '@lomo/tensor';
import { describe, expect, it } from 'vitest';
import type { JsonObject, LanguageModel, RealDiskType } from '../src/index.ts';
import { SafetensorsFile, convert, createModel, generate, initialise, loadModel, overflowedHalf, saveModel } from '../src/index.ts';
import { golden, hasGolden, temporary } from './folders.ts';
import { batchOf, gradientsOf, logitsOf, referenceDevice } from './run.ts';

const config: JsonObject = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], vocab_size: 40, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2,
  num_key_value_heads: 1, tie_word_embeddings: false,
};

async function fresh(dtype: DType): Promise<LanguageModel> {
  const model = createModel(config, referenceDevice(), { dtype });
  initialise(model, 11);
  return model;
}

async function weightsOf(model: LanguageModel): Promise<number[]> {
  const all: number[] = [];
  for (const p of model.parameters) all.push(...(await model.device.readNumbers(p)));
  return all;
}

/** `model` saved as `dtype` and loaded again as `as`. */
async function through(model: LanguageModel, dtype: RealDiskType, as: DType): Promise<LanguageModel> {
  const folder = join(await temporary(), 'model');
  await saveModel(model, folder, { dtype });
  return loadModel(folder, referenceDevice(), { dtype: as });
}

describe.skipIf(!hasGolden)('golden families in f16', () => {
  it.each(['llama', 'mistral', 'qwen2', 'qwen3'])('%s: logits and gradients are those of the f32 model with the rounded weights', async (family) => {
    const folder = join(golden, 'models', family);
    const { ids } = JSON.parse(await readFile(join(folder, 'golden.json'), 'utf8')) as { ids: readonly (readonly number[])[] };
    const half = await loadModel(folder, referenceDevice(), { dtype: 'f16' });
    const whole = await through(half, 'F16', 'f32');
    expect(half.parameters.every((p) => p.dtype === 'f16')).toBe(true);
    expect(half.device.arena.usage.weights.live).toBeLessThan(0.6 * whole.device.arena.usage.weights.live);
    const logits = [await logitsOf(half, batchOf(half.device, ids)), await logitsOf(whole, batchOf(whole.device, ids))];
    expect(logits[0]).toEqual(logits[1]);
    for (const headForm of ['chunks', 'tiles'] as const) {
      const [a, b] = [await gradientsOf(half, batchOf(half.device, ids, { headForm })), await gradientsOf(whole, batchOf(whole.device, ids, { headForm }))];
      expect(a.loss).toBe(b.loss);
      expect([...a.gradients]).toEqual([...b.gradients]);
    }
    const texts = await Promise.all([half, whole].map(async (model) => {
      const text: number[] = [];
      for await (const id of generate(model, ids[0]!.slice(0, 8), { maxNewTokens: 6, stop: [] })) text.push(id);
      return text;
    }));
    expect(texts[0]).toEqual(texts[1]);
  });
});

describe('files', () => {
  it.each(['F32', 'BF16', 'F16'] as const)('%s loads into f16, rounded to nearest once', async (type) => {
    const source = await fresh('f32');
    const [loaded, stored] = [await through(source, type, 'f16'), await through(source, type, 'f32')];
    expect(await weightsOf(loaded)).toEqual((await weightsOf(stored)).map((x) => fromF16(toF16(x))));
  });

  it('f16 is saved as it is, 2 bytes a weight, and loads to the same bits', async () => {
    const model = await fresh('f16');
    const folder = join(await temporary(), 'model');
    await saveModel(model, folder);
    await using file = await SafetensorsFile.open(join(folder, 'model.safetensors'));
    expect([...file.entries.values()].every(({ dtype }) => dtype === 'F16')).toBe(true);
    const again = await loadModel(folder, referenceDevice(), { dtype: 'f16' });
    expect(await weightsOf(again)).toEqual(await weightsOf(model));
    const sizes = (await readFile(join(folder, 'model.safetensors'))).byteLength;
    expect(sizes - 2 * model.size).toBeLessThan(4096);
  });

  it('a weight above 65504 is refused by name, not made infinite', async () => {
    const model = await fresh('f32');
    const norm = model.parameters.find((p) => p.path === 'model.norm.weight')!;
    model.device.writeNumbers(norm, Array.from({ length: 16 }, (_, i) => (i === 3 ? -65520 : 1)));
    const folder = join(await temporary(), 'model');
    await saveModel(model, folder);
    await expect(loadModel(folder, referenceDevice(), { dtype: 'f16' })).rejects.toThrow(/model\.safetensors: model\.norm\.weight holds a number above 65504/);
    model.device.writeNumbers(norm, Array.from({ length: 16 }, () => 65519));
    await saveModel(model, folder, { from: folder });
    const loaded = await loadModel(folder, referenceDevice(), { dtype: 'f16' });
    expect((await weightsOf(loaded)).slice(-640 - 16, -640)).toEqual(Array.from({ length: 16 }, () => 65504));
  });

  it('conversion is exact for every f16, and rounds every f32 as the definition does', async () => {
    const all = Uint16Array.from({ length: 65536 }, (_, bits) => bits).filter((bits) => (bits & 0x7fff) <= 0x7c00);
    const wide = convert(new Uint8Array(all.buffer), 'F16', 'F32');
    expect([...new Float32Array(wide.buffer)]).toEqual([...all].map(fromF16));
    expect(new Uint16Array(convert(wide, 'F32', 'F16').buffer)).toEqual(all);
    let state = 1;
    const values = new Float32Array(20_000);
    const bits = new Uint32Array(values.buffer);
    for (let i = 0; i < bits.length; i++) bits[i] = state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    expect(new Uint16Array(convert(new Uint8Array(values.buffer), 'F32', 'F16').buffer)).toEqual(Uint16Array.from(values, toF16));
    expect(overflowedHalf(Uint16Array.of(0x7bff, 0xfbff))).toBe(false);
    expect(overflowedHalf(Uint16Array.of(0, 0xfc00))).toBe(true);
  });
});

it('config.json may say float16, and is kept as it is', async () => {
  const model = await fresh('f16');
  const folder = join(await temporary(), 'model');
  await saveModel(model, folder);
  const path = join(folder, 'config.json');
  await writeFile(path, JSON.stringify({ ...config, torch_dtype: 'float16' }));
  const loaded = await loadModel(folder, referenceDevice(), { dtype: 'f16' });
  expect(loaded.config.storedDtype).toBe('f16');
});
