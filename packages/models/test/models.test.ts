// The families against PyTorch's golden values: logits, loss, gradients; and cached generation against uncached logits.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Device, DryBackend, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { describe, expect, it } from 'vitest';
import { SafetensorsFile, createModel, generate, initialise, loadModel } from '../src/index.ts';
import type { JsonObject } from '../src/index.ts';
import { golden, hasGolden, hasStories, stories } from './folders.ts';
import { batchOf, distance, goldenTensor, gradientsOf, logitsOf, referenceDevice } from './run.ts';

interface Golden {
  readonly ids: readonly (readonly number[])[];
  readonly loss: number;
  readonly tied: boolean;
}

const readJson = async <T>(path: string): Promise<T> => JSON.parse(await readFile(path, 'utf8')) as T;

// The reference backend computes in float64; what is left is the frequencies' and the weights' own float32.
const tolerance = 1.5e-6;

describe.skipIf(!hasGolden)('golden families', () => {
  it.each(['llama', 'mistral', 'qwen2', 'qwen3'])('%s: logits, loss and every gradient', async (family) => {
    const folder = join(golden, 'models', family);
    const { ids, loss, tied } = await readJson<Golden>(join(folder, 'golden.json'));
    await using values = await SafetensorsFile.open(join(folder, 'golden.safetensors'));
    const device = referenceDevice();
    using model = await loadModel(folder, device);
    expect(model.parameters.some((p) => p.path === 'lm_head.weight')).toBe(!tied);

    const batch = batchOf(device, ids);
    expect(distance(await logitsOf(model, batch), await goldenTensor(values, 'logits'))).toBeLessThan(tolerance);
    const live = device.arena.live;
    for (const headForm of ['chunks', 'tiles'] as const) {
      const found = await gradientsOf(model, { ...batchOf(device, ids, { headForm }), headForm });
      expect(Math.abs(found.loss - loss)).toBeLessThan(1e-6);
      const names = [...values.entries.keys()].filter((name) => name.startsWith('grad.'));
      expect([...found.gradients.keys()].sort()).toEqual(names.map((name) => name.slice(5)).sort());
      for (const name of names) expect(distance(found.gradients.get(name.slice(5))!, await goldenTensor(values, name)), name).toBeLessThan(5e-6);
    }
    expect(device.arena.usage.saved.live).toBe(0);
    expect(device.arena.usage.gradient.live).toBe(0);
    expect(device.arena.live).toBeGreaterThanOrEqual(live);
  });

  it('bf16 weights and activations stay near', async () => {
    for (const family of ['llama', 'mistral', 'qwen2', 'qwen3']) {
      const folder = join(golden, 'models', family);
      const { ids } = await readJson<Golden>(join(folder, 'golden.json'));
      await using values = await SafetensorsFile.open(join(folder, 'golden.safetensors'));
      const device = referenceDevice();
      using model = await loadModel(folder, device, { dtype: 'bf16' });
      expect(distance(await logitsOf(model, batchOf(device, ids)), await goldenTensor(values, 'logits')), family).toBeLessThan(0.05);
    }
  });

  it.each(['llama', 'mistral', 'qwen2', 'qwen3'])('%s: decoding with a cache picks what full logits pick', async (family) => {
    const folder = join(golden, 'models', family);
    const { ids } = await readJson<Golden>(join(folder, 'golden.json'));
    const device = referenceDevice();
    using model = await loadModel(folder, device);
    const before = device.arena.live;
    const prompt = ids[0]!.slice(0, 12);
    const found: number[] = [];
    for await (const id of generate(model, prompt, { maxNewTokens: 6, stop: [] })) found.push(id);
    expect(device.arena.live).toBe(before);
    const row = [...prompt];
    for (const id of found) {
      const logits = await logitsOf(model, batchOf(device, [row]));
      const last = logits.subarray((row.length - 1) * 64);
      expect(id).toBe(last.indexOf(Math.max(...last)));
      row.push(id);
    }
    expect(found).toHaveLength(6);
  });
});

describe.skipIf(!hasStories)('stories260k', () => {
  it('continues from BOS as PyTorch does', async () => {
    const { ids } = await readJson<{ ids: readonly number[] }>(join(golden, 'stories260k', 'greedy.json'));
    const device = referenceDevice();
    using model = await loadModel(stories, device);
    expect(model.size).toBe(260_032);
    const found: number[] = [1];
    for await (const id of generate(model, [1], { maxNewTokens: 24 })) found.push(id);
    const expected = ids[0] === 1 ? ids : [1, ...ids];
    expect(found).toEqual(expected.slice(0, 25));
  });
});

const small: JsonObject = {
  model_type: 'qwen3', vocab_size: 33, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 6,
  tie_word_embeddings: true, eos_token_id: 2,
};

async function collect(ids: AsyncIterable<number>): Promise<number[]> {
  const found: number[] = [];
  for await (const id of ids) found.push(id);
  return found;
}

describe('generate', () => {
  const device = referenceDevice();
  const model = createModel(small, device);
  initialise(model, 7);

  it('is a function of its seed, and stops at stop ids, an abort and the end', async () => {
    const draw = (seed: number) => collect(generate(model, [5, 6], { maxNewTokens: 12, temperature: 2, seed, stop: [] }));
    const first = await draw(1);
    expect(first).toHaveLength(12);
    expect(await draw(1)).toEqual(first);
    expect(await draw(2)).not.toEqual(first);
    expect(await draw(2 ** 40 + 1)).not.toEqual(first);
    expect(await collect(generate(model, [5, 6], { maxNewTokens: 12, temperature: 2, seed: 1, stop: [first[4]!] }))).toEqual(first.slice(0, first.indexOf(first[4]!)));
    const abort = new AbortController();
    const found: number[] = [];
    for await (const id of generate(model, [5], { maxNewTokens: 12, signal: abort.signal, stop: [] })) if (found.push(id) === 3) abort.abort();
    expect(found).toHaveLength(3);
    expect(await collect(generate(model, [5], { maxNewTokens: 0 }))).toEqual([]);
  });

  it('gives its memory back when a caller leaves early', async () => {
    const before = device.arena.live;
    for await (const id of generate(model, [5, 6, 7], { maxNewTokens: 12, stop: [] })) if (id >= 0) break;
    expect(device.arena.live).toBe(before);
  });

  it('needs exactly the memory that the same calls need without data', async () => {
    const run = async (device: Device): Promise<Device> => {
      using model = createModel(small, device);
      initialise(model, 1);
      await collect(generate(model, [5, 6, 7], { maxNewTokens: 9, stop: [] }));
      return device;
    };
    const reference = () => new ReferenceBackend({ ops: tensorOps });
    const { extent } = (await run(new Device(new DryBackend(reference()), { bytes: Infinity }))).arena;
    expect((await run(new Device(reference(), { bytes: extent }))).arena.extent).toBe(extent);
    await expect(run(new Device(reference(), { bytes: extent - 256 }))).rejects.toMatchObject({ code: 'OutOfMemory' });
  });

  it('takes a long prompt in pieces without changing anything', async () => {
    const long = Array.from({ length: 520 }, (_, i) => (i * 7) % 33);
    const [found] = await collect(generate(model, long, { maxNewTokens: 1, stop: [] }));
    const logits = await logitsOf(model, batchOf(device, [long]));
    const last = logits.subarray(519 * 33);
    expect(found).toBe(last.indexOf(Math.max(...last)));
  });

  it.each([
    [[], { maxNewTokens: 1 }, /prompt = \[\]/],
    [[33], { maxNewTokens: 1 }, /prompt id = 33; expected an id below 33/],
    [[1], { maxNewTokens: -1 }, /maxNewTokens = -1/],
    [[1], { maxNewTokens: 1, temperature: -1 }, /temperature/],
    [[1], { maxNewTokens: 1, topP: 0 }, /topP/],
    [[1], { maxNewTokens: 1, topK: 1.5 }, /topK/],
    [[1], { maxNewTokens: 1, seed: 1.5 }, /seed/],
  ])('refuses %j %j', async (prompt, options, message) => {
    await expect(collect(generate(model, prompt, options))).rejects.toThrow(message);
  });
});
