// Loading and saving whole models: conversions, sidecars byte for byte, replacing the source, failures that leave the old model.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CausalStage, Linear, SafetensorsFile, builtInFamilies, configSaying, createModel, initialise, loadModel, loadWeights, nodeFiles, observeFiles, openCheckpoint, saveModel, writeModel } from '../src/index.ts';
import type { Build, CommonConfig, DecodeStep, JsonObject, LanguageModel, ModelFamily, RealDiskType } from '../src/index.ts';
import { embedding } from '@lomo/tensor';
import type { Batch, DType, Parameter, Tensor } from '@lomo/tensor';
import { temporary } from './folders.ts';
import { referenceDevice } from './run.ts';

const json: JsonObject = {
  architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2', vocab_size: 19, hidden_size: 8, intermediate_size: 12, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
  tie_word_embeddings: true, initializer_range: 0.05,
};
const device = referenceDevice();

async function valuesOf(model: LanguageModel): Promise<Map<string, number[]>> {
  const values = new Map<string, number[]>();
  for (const p of model.parameters) values.set(p.path, [...(await device.readNumbers(p))]);
  return values;
}

/** A saved model with sidecars, and the model. */
async function saved(options: { dtype?: RealDiskType; shardBytes?: number } = {}): Promise<{ folder: string; model: LanguageModel }> {
  const model = createModel(json, device);
  initialise(model, 3);
  const folder = join(await temporary(), 'model');
  await saveModel(model, folder, options);
  return { folder, model };
}

describe('initialise', () => {
  it('starts as transformers does, by seed and name', async () => {
    const [a, b, c] = [1, 1, 2].map((seed) => {
      const model = createModel({ ...json, hidden_size: 64, vocab_size: 500 }, device);
      initialise(model, seed);
      return model;
    }) as [LanguageModel, LanguageModel, LanguageModel];
    const [x, y, z] = [await valuesOf(a), await valuesOf(b), await valuesOf(c)];
    expect(x).toEqual(y);
    const embeddings = x.get('model.embed_tokens.weight')!;
    expect(embeddings).not.toEqual(z.get('model.embed_tokens.weight'));
    const mean = embeddings.reduce((s, v) => s + v, 0) / embeddings.length;
    const deviation = Math.sqrt(embeddings.reduce((s, v) => s + (v - mean) ** 2, 0) / embeddings.length);
    expect(Math.abs(mean)).toBeLessThan((4 * 0.05) / Math.sqrt(embeddings.length));
    expect(Math.abs(deviation / 0.05 - 1)).toBeLessThan(0.03);
    expect(new Set(x.get('model.norm.weight'))).toEqual(new Set([1]));
    expect(new Set(x.get('model.layers.1.self_attn.q_proj.bias'))).toEqual(new Set([0]));
    expect(x.get('model.layers.0.mlp.up_proj.weight')).not.toEqual(x.get('model.layers.1.mlp.up_proj.weight'));
    expect(() => initialise(a, 2 ** 32)).toThrow(/seed = 4294967296; expected/);
    for (const model of [a, b, c]) model.dispose();
  });
});

describe('save and load', () => {
  it('round trips exactly, in one file and in shards', async () => {
    for (const shardBytes of [undefined, 1000]) {
      const { folder, model } = await saved(shardBytes === undefined ? {} : { shardBytes });
      expect((await readdir(folder)).length > 4).toBe(shardBytes !== undefined);
      using again = await loadModel(folder, device);
      const [x, y] = [await valuesOf(model), await valuesOf(again)];
      for (const [path, values] of x) expect(y.get(path)).toEqual(values.map(Math.fround));
      model.dispose();
    }
  });

  it.each(['F32', 'BF16', 'F16'] as const)('reads %s into each dtype, rounding once', async (disk) => {
    const { folder, model } = await saved({ dtype: disk });
    const path = 'model.layers.0.mlp.down_proj.weight';
    await using checkpoint = await openCheckpoint(folder);
    expect(checkpoint.tensor(path).dtype).toBe(disk);
    const original = (await valuesOf(model)).get(path)!;
    for (const dtype of ['f32', 'bf16'] as const) {
      using again = await loadModel(folder, device, { dtype });
      const worst = disk === 'BF16' || dtype === 'bf16' ? 2 ** -8 : disk === 'F16' ? 2 ** -11 : 2 ** -24;
      (await valuesOf(again)).get(path)!.forEach((v, i) => expect(Math.abs(v - original[i]!)).toBeLessThanOrEqual(1.01 * worst * Math.abs(original[i]!) + 2 ** -25));
    }
    model.dispose();
  });

  it('writes what config.json asks for: names, a tied head once, the format transformers wants', async () => {
    const { folder, model } = await saved();
    await using file = await SafetensorsFile.open(join(folder, 'model.safetensors'));
    expect(file.metadata['format']).toBe('pt');
    expect(file.entries.has('lm_head.weight')).toBe(false);
    expect([...file.entries.keys()]).toEqual(model.tensors.map((t) => t.name));
    expect(JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'))).toEqual(json);
    expect(model.size).toBe([...file.entries.values()].reduce((n, e) => n + e.bytes / 4, 0));
    model.dispose();
  });

  it('copies sidecars byte for byte, weights of other formats not', async () => {
    const { folder, model } = await saved();
    const odd = '{ "model_type" : "qwen2",\r\n  "vocab_size": 19, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": true, "rms_norm_eps": 1E-06 }';
    await writeFile(join(folder, 'config.json'), odd);
    await writeFile(join(folder, 'tokenizer.model'), Uint8Array.from({ length: 3_000_000 }, (_, i) => i % 251));
    await writeFile(join(folder, 'pytorch_model.bin'), 'x');
    await writeFile(join(folder, '.hidden'), 'x');
    await mkdir(join(folder, 'original'));
    const out = join(await temporary(), 'out');
    const written = await saveModel(model, out, { from: folder, shardBytes: 1000 });
    expect(await readFile(join(out, 'config.json'), 'utf8')).toBe(odd);
    expect(Buffer.compare(await readFile(join(out, 'tokenizer.model')), await readFile(join(folder, 'tokenizer.model')))).toBe(0);
    expect(await readdir(out)).toEqual(written.map((w) => w.name).sort());
    expect(existsSync(join(out, 'pytorch_model.bin'))).toBe(false);
    await expect(saveModel(model, out, { from: folder })).rejects.toMatchObject({ code: 'FolderNotEmpty' });
    model.dispose();
  });

  it('says in config.json which type the weights have, and changes nothing else', async () => {
    const from = join(await temporary(), 'from');
    await mkdir(from);
    const fields = '"model_type": "qwen2",\r\n\t"vocab_size": 19, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": true, "rms_norm_eps": 1E-06, "task_specific_params": {"a": [{"dtype": "x"}, 1]}';
    const out = async (config: string, options: { dtype?: DType; disk?: RealDiskType }): Promise<string> => {
      await writeFile(join(from, 'config.json'), config);
      const model = createModel(json, device, { dtype: options.dtype ?? 'f32' });
      initialise(model, 3);
      const folder = join(await temporary(), 'out');
      const written = await saveModel(model, folder, { from, ...(options.disk === undefined ? {} : { dtype: options.disk }) });
      model.dispose();
      const bytes = await readFile(join(folder, 'config.json'));
      expect(written.find(({ name }) => name === 'config.json')).toMatchObject({ bytes: bytes.byteLength, sha256: createHash('sha256').update(bytes).digest('hex') });
      using again = await loadModel(folder, device);
      await using checkpoint = await openCheckpoint(folder);
      const disk = { F32: 'f32', BF16: 'bf16', F16: 'f16' }[checkpoint.tensor('model.norm.weight').dtype as RealDiskType];
      if (disk !== 'f32') expect(again.config.storedDtype).toBe(disk);
      return bytes.toString('utf8');
    };
    const classic = (name: string, more = ''): string => `{ ${fields},\n  "torch_dtype" : ${name} ${more}}\n`;
    const f32 = classic('"float32"');
    expect(await out(f32, { dtype: 'f16' })).toBe(f32.replace('"float32"', '"float16"'));
    expect(await out(f32, { dtype: 'bf16' })).toBe(f32.replace('"float32"', '"bfloat16"'));
    expect(await out(f32, { disk: 'F16' })).toBe(f32.replace('"float32"', '"float16"'));
    expect(await out(f32, {})).toBe(f32);
    expect(await out(`{"dtype":"float16","torch_dtype":"float16",${fields}}`, { dtype: 'bf16' })).toBe(`{"dtype":"bfloat16","torch_dtype":"bfloat16",${fields}}`);
    expect(await out(`\ufeff{\n  ${fields},\n  "rope_theta": 10000.0\n}\n`, { dtype: 'f16' })).toBe(`\ufeff{\n  ${fields},\n  "rope_theta": 10000.0,\n  "torch_dtype": "float16"\n}\n`);
    const odd = ', "x_\\"y": "a\\\\" ';
    const bytes = new TextEncoder().encode(classic('null', odd));
    expect(new TextDecoder().decode(configSaying(bytes, 'BF16', 'config.json'))).toBe(classic('"bfloat16"', odd));
    expect(() => configSaying(bytes.subarray(5), 'BF16', 'config.json')).toThrow(/config\.json:1/);
  });

  it('replaces its own source, keeping what is not weights', async () => {
    const { folder, model } = await saved({ shardBytes: 1000 });
    await writeFile(join(folder, 'tokenizer.json'), '{}');
    await mkdir(join(folder, 'runs'));
    await writeFile(join(folder, 'runs', 'log'), 'kept');
    initialise(model, 99);
    await saveModel(model, folder, { from: folder });
    expect(await readdir(folder)).toEqual(['config.json', 'model.safetensors', 'runs', 'tokenizer.json']);
    expect(await readFile(join(folder, 'runs', 'log'), 'utf8')).toBe('kept');
    expect(existsSync(`${folder}.previous`) || existsSync(`${folder}.partial`)).toBe(false);
    using again = await loadModel(folder, device);
    const path = 'model.norm.weight';
    expect((await valuesOf(again)).get(path)).toEqual((await valuesOf(model)).get(path));
    await mkdir(`${folder}.previous`);
    await expect(saveModel(model, folder, { from: folder })).rejects.toMatchObject({ code: 'LeftoverFolder' });
    model.dispose();
  });

  it('leaves a loadable old model, whichever file call fails', async () => {
    const { folder, model } = await saved();
    await writeFile(join(folder, 'tokenizer.json'), '{}');
    const before = await readFile(join(folder, 'model.safetensors'));
    initialise(model, 99);
    let total = 0;
    const out = await temporary();
    await saveModel(model, join(out, 'first'), { from: folder, files: observeFiles(nodeFiles, (call) => void (total = call.count)) });
    expect(total).toBeGreaterThan(30);
    for (let k = 1; k <= total; k++) {
      const files = observeFiles(nodeFiles, (call) => {
        if (call.count === k) throw Object.assign(new Error('injected'), { code: 'ENOSPC' });
      });
      await expect(saveModel(model, join(out, `k${k}`), { from: folder, files })).rejects.toMatchObject({ code: 'FileError', details: { errno: 'ENOSPC' } });
    }
    expect(Buffer.compare(await readFile(join(folder, 'model.safetensors')), before)).toBe(0);
    expect((await readdir(out)).filter((name) => name.endsWith('.partial'))).toEqual([]);
    model.dispose();
  });

  it('replaces its source with a whole model or leaves the old one, whichever file call fails', async () => {
    const { folder, model } = await saved({ shardBytes: 4000 });
    const old = await valuesOf(model);
    initialise(model, 99);
    const path = 'model.embed_tokens.weight';
    const versions = [old, await valuesOf(model)].map((values) => values.get(path)!.map(Math.fround));
    let total = Infinity;
    const seen = new Set<number>();
    for (let k = 1; k <= total; k++) {
      const copy = join(await temporary(), 'copy');
      await cp(folder, copy, { recursive: true });
      let count = 0;
      const files = observeFiles(nodeFiles, (call) => {
        count = call.count;
        if (k < total && call.count === k) throw Object.assign(new Error('injected'), { code: 'EIO' });
      });
      const failed = await saveModel(model, copy, { from: copy, files }).then(() => false, () => true);
      if (!failed) total = count;
      using again = await loadModel(copy, device);
      const found = (await valuesOf(again)).get(path)!;
      const version = versions.findIndex((values) => values.every((v, i) => v === found[i]));
      expect(version, `call ${k}`).not.toBe(-1);
      seen.add(version);
      if (!failed) expect(version).toBe(1);
    }
    expect([...seen].sort((a, b) => a - b)).toEqual([0, 1]);
    model.dispose();
  });

  it('refuses weights that are not the configuration, before touching a parameter', async () => {
    const { folder, model } = await saved();
    const other = createModel({ ...json, intermediate_size: 13 }, device);
    await expect(loadWeights(other, folder)).rejects.toThrow(/6 differences[\s\S]*shape: model\.layers\.0\.mlp\.gate_proj\.weight in .*model\.safetensors: expected \[13, 8\], found \[12, 8\]/);
    const live = device.arena.live;
    await writeFile(join(folder, 'config.json'), JSON.stringify({ ...json, num_hidden_layers: 3 }));
    await expect(loadModel(folder, device)).rejects.toMatchObject({ code: 'WeightsMismatch' });
    await symlink('/etc/hostname', join(folder, 'notes.txt'));
    await expect(loadModel(folder, device)).rejects.toMatchObject({ code: 'OutsideFolder' });
    expect(device.arena.live).toBe(live);
    other.dispose();
    model.dispose();
  });

  it('makes only the stages a rank owns, shares ties, and will not save a part', async () => {
    const { folder, model } = await saved();
    using last = await loadModel(folder, device, { owns: (stage) => stage === 3 });
    expect(last.stages.map((s) => s.name)).toEqual(['head']);
    expect(last.stageNames).toEqual(['embedding', 'block 0', 'block 1', 'head']);
    expect(last.parameters.map((p) => p.path)).toEqual(['model.norm.weight', 'model.embed_tokens.weight']);
    expect(last.tensors).toEqual(model.tensors);
    const out = await temporary();
    await expect(writeModel(last, out)).rejects.toMatchObject({ code: 'PartialModel' });
    const tied = model.parameters.filter((p) => p.path === 'model.embed_tokens.weight');
    expect(model.stages.filter((s) => s.parameters().includes(tied[0]!)).map((s) => s.name)).toEqual(['embedding', 'head']);
    model.dispose();
  });

  it('gives every byte back', async () => {
    const live = device.arena.live;
    const { folder, model } = await saved();
    (await loadModel(folder, device)).dispose();
    model.dispose();
    expect(device.arena.live).toBe(live);
  });
});

describe('a family from outside', () => {
  class Bigram extends CausalStage {
    readonly name = 'bigram';
    readonly table: Parameter;
    constructor(build: Build, size: number) {
      super();
      this.table = new Linear(build, 'bigram', { inputs: size, outputs: size, bias: false }).weight;
    }
    forward(batch: Batch): Tensor {
      return embedding(batch.tokens, this.table);
    }
    decode(step: DecodeStep): Tensor {
      return embedding(step.tokens, this.table);
    }
  }
  const bigram: ModelFamily = {
    modelType: 'bigram',
    parseConfig: (source): CommonConfig => ({ modelType: 'bigram', vocabSize: source['vocab_size'] as number, initializerRange: 1, storedDtype: null, eosIds: [], source }),
    stages: (config) => [{ name: 'bigram', create: (build) => new Bigram(build, config.vocabSize) }],
  };

  it('is created, saved and loaded like the built-in ones', async () => {
    const families = [...builtInFamilies, bigram];
    using model = createModel({ model_type: 'bigram', vocab_size: 5 }, device, { families });
    initialise(model, 1);
    const folder = join(await temporary(), 'bigram');
    await saveModel(model, folder);
    using again = await loadModel(folder, device, { families });
    expect(again.tensors).toEqual([{ name: 'bigram.weight', shape: [5, 5] }]);
    expect((await valuesOf(again)).get('bigram.weight')).toEqual((await valuesOf(model)).get('bigram.weight')!.map(Math.fround));
    await cp(folder, `${folder}2`, { recursive: true });
    await expect(loadModel(`${folder}2`, device)).rejects.toThrow(/known: llama, mistral, qwen2, qwen3/);
  });
});
