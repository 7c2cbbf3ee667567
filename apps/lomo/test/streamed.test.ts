// Weights that come from a file and go back, on the CPU: equal SHA-256 to weights that stay, the arena of two or three stages whatever the
// depth, the plan kept, and nothing allocated natively after the second step.
import { createHash } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpu } from '@lomo/cpu';
import { createModel, initialiseAnywhere, modelSources, nodeFiles } from '@lomo/models';
import { adalomo, adamw, lomo, Optimizer, sgd } from '@lomo/optim';
import type { Clip, Rule } from '@lomo/optim';
import type { MemoryPlan } from '@lomo/parallel';
import { Carrier, makePlan, Program, Residency, underPlan } from '@lomo/parallel';
import { Device, hostWindow } from '@lomo/tensor';
import type { ScratchFile } from '@lomo/trainer';
import { emptyBatch, openOffloadFile, openSpillFile, openStreamFile } from '@lomo/trainer';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SmallOptions } from './small.ts';
import { cut, small, smallSeed } from './small.ts';

const backend = cpu({ threads: 2 });
const files: ScratchFile[] = [];
beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-streamed-'));
  for (const open of [openStreamFile, openOffloadFile, openSpillFile]) files.push(await open(folder, { files: nodeFiles, bytes: 2 ** 20 }));
});
afterAll(async () => {
  for (const file of files) await file[Symbol.asyncDispose]();
  await backend[Symbol.asyncDispose]();
});

const tokens = 1024;
const shape = { num_hidden_layers: 5, vocab_size: 700 };

/** SHA-256 of losses, norms, all weights and all state after `steps` steps. */
async function digest(options: SmallOptions, steps = 2): Promise<string> {
  const { device, model, optimizer, program } = small(backend, { ...options, config: { ...shape, ...options.config } });
  await initialiseAnywhere(model, smallSeed);
  const hash = createHash('sha256');
  for (let step = 1; step <= steps; step++) {
    const batches = cut(tokens, options.microBatches, { seed: step, vocabulary: shape.vocab_size });
    const { loss, gradNorm } = await program.run({ step, seed: 1, lr: 0.02, batches, passes: optimizer.passes });
    hash.update(new Uint8Array(Float64Array.of(loss, gradNorm).buffer));
  }
  const held = await program.evaluate(cut(tokens / options.microBatches, 1, { seed: 9, vocabulary: shape.vocab_size }));
  hash.update(new Uint8Array(Float64Array.of(held.loss).buffer));
  for (const source of modelSources(model)) for await (const bytes of source.slices()) hash.update(bytes);
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  device.free();
  return hash.digest('hex');
}

const rules: readonly Rule[] = [lomo, adalomo(), adamw(), sgd];
const clips: readonly (readonly [string, Clip | null])[] = [['no clip', null], ['two passes', { norm: 0.5 }], ['spilled in memory', { norm: 0.5 }], ['spilled in a file', { norm: 0.5 }]];
const dtypes = ['f32', 'bf16', 'f16', 'bf16'] as const;
const splits = [{ microBatches: 1 }, { microBatches: 2, accumulate: 'factors' }, { microBatches: 2, accumulate: 'buffer' }, { microBatches: 4, accumulate: 'factors' }] as const;
const ways = [['recomputed'], ['recomputed, boundaries in a file'], ['tapes kept'], ['untied, vocabulary tiles, boundaries in a file']] as const;

/** Multiplication in the field of four elements. */
const times = (a: number, b: number): number => [[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]][a]![b]!;

describe('streamed = resident; in 16 rows of an orthogonal array every two settings meet', () => {
  const rows = Array.from({ length: 16 }, (_, i) => {
    const [a, b] = [i % 4, Math.floor(i / 4)];
    return { rule: rules[a]!, clip: clips[b]!, dtype: dtypes[a ^ b]!, split: splits[a ^ times(2, b)]!, way: a ^ times(3, b) };
  });
  const named = rows.map((row) => [[row.rule.name, row.dtype, row.clip[0], JSON.stringify(row.split), ways[row.way]![0]].join(', '), row] as const);
  test.each(named)('%s', async (_, { rule, clip: [clipping, clip], dtype, split, way }) => {
    const resident: SmallOptions = {
      rule, dtype, ...split, tokens: tokens / split.microBatches, keeps: way === 2, ...(way === 3 ? { headForm: 'tiles', config: { tie_word_embeddings: false } } : {}),
      ...(clip === null ? {} : { clip }), ...(clipping === 'spilled in memory' ? { spill: 'memory' } : clipping === 'spilled in a file' ? { spill: files[2]! } : {}),
    };
    const streamed = { ...resident, stream: files[0]!, ...(way % 2 === 1 ? { offload: files[1]! } : {}) };
    expect(await digest(streamed)).toBe(await digest(resident));
  });
});

/** LLaMA-65B's config.json: 65.3e9 numbers, 121.6 GiB in bf16. */
const llama65b = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 8192, intermediate_size: 22016, num_hidden_layers: 80, num_attention_heads: 64,
  num_key_value_heads: 64, vocab_size: 32000, max_position_embeddings: 2048, rms_norm_eps: 1e-6, rope_theta: 10000, hidden_act: 'silu', tie_word_embeddings: false,
};

test('the plan of LLaMA-65B, bf16, 8 x 1024 tokens: streamed and offloaded in under 8.5 GiB, each weight read twice and written once', async () => {
  const store = { read: async () => {}, write: async () => {} };
  let program: Program | null = null;
  const plan = await makePlan(backend, function* (device) {
    let optimizer: Optimizer | null = null;
    yield {
      name: 'setup',
      run: () => {
        const model = createModel(llama65b, device, { dtype: 'bf16', away: true });
        optimizer = new Optimizer(device, model.parameters, { rule: lomo });
        const residency = new Residency(device, model, store);
        program = new Program(device, model, { tokens: 1024, maxSegments: 8, maxLength: 1024, microBatches: 8, headForm: 'tiles', residency, offload: store });
      },
    };
    const batches = Array.from({ length: 8 }, () => emptyBatch(1024, 8));
    yield { name: 'step', run: async () => void (await program!.run({ step: 1, seed: 0, lr: 0, batches, passes: optimizer!.passes })) };
  });
  const gibibyte = 2 ** 30;
  expect(plan.extent / gibibyte).toBeLessThan(8.5);
  const { read, written } = program!.residency!.traffic;
  expect([Math.round(written / gibibyte), Math.round(read / gibibyte)]).toEqual([122, 241]);
});

test('what lies across two windows of the host goes to the file and comes back whole', async () => {
  const device = new Device(backend, { bytes: hostWindow + 2 ** 20 });
  device.arena.allocate(hostWindow - 2 ** 18, 'workspace'); // never touched: no page of it is taken
  const tensor = device.allocate({ shape: [2 ** 17], dtype: 'f32' }, 'workspace');
  const carrier = new Carrier(device, files[0]!);
  const values = Float32Array.from({ length: 2 ** 17 }, (_, i) => i);
  device.write(tensor, values);
  const parcel = { offset: tensor.offset, bytes: tensor.bytes, dtype: tensor.dtype, position: 64 };
  await carrier.deliver([parcel]);
  device.write(tensor, new Float32Array(2 ** 17));
  await carrier.fetch([parcel]);
  expect(await device.read(tensor)).toEqual(values);
  expect([carrier.put, carrier.fetched]).toEqual([tensor.bytes, tensor.bytes]);
  device.free();
});

describe('memory', () => {
  const options = (layers: number): SmallOptions => ({
    rule: lomo, tokens: 64, microBatches: 2, stream: files[0]!, offload: files[1]!, clip: { norm: 1 },
    config: { num_hidden_layers: layers, vocab_size: 300, hidden_size: 128, intermediate_size: 320, tie_word_embeddings: false },
  });
  const planOf = (layers: number): Promise<MemoryPlan> =>
    makePlan(backend, function* (on) {
      let made: ReturnType<typeof small> | null = null;
      yield { name: 'setup', run: () => void (made = small(backend, { ...options(layers), on })) };
      yield { name: 'step', run: async () => void (await made!.program.run({ step: 1, seed: 1, lr: 0.1, batches: cut(128, 2, { seed: 1, vocabulary: 300 }), passes: made!.optimizer.passes })) };
    });

  test('of a step is two or three stages, the same at 4 and 16 layers, and the run is its plan', async () => {
    const extents: number[] = [];
    for (const layers of [4, 16]) {
      const plan = await planOf(layers);
      const on = new Device(backend, { bytes: plan.extent });
      const made = await underPlan(on, plan, { name: 'setup', body: () => small(backend, { ...options(layers), on }) });
      await initialiseAnywhere(made.model, smallSeed);
      const block = made.model.stages[1]!.parameters().reduce((n, p) => n + p.bytes, 0);
      for (let step = 1; step <= 3; step++) {
        const { allocations } = backend.counters();
        await underPlan(on, plan, { name: 'step', body: () => made.program.run({ step, seed: 1, lr: 0.1, batches: cut(128, 2, { seed: step, vocabulary: 300 }), passes: made.optimizer.passes }) });
        if (step > 2) expect(backend.counters().allocations).toBe(allocations);
      }
      const { peak } = on.arena.usage.weights;
      expect([peak >= 2 * block, peak <= 3.05 * block, made.program.residency!.bytes > layers * block]).toEqual([true, true, true]);
      expect(on.arena.usage.boundary.peak).toBeLessThanOrEqual(2 * 5 * 64 * 128 * 4);
      extents.push(plan.extent);
      on.free();
    }
    // Boundaries are put away too: nothing grows with the depth but holes.
    expect(extents[1]! / extents[0]!).toBeLessThan(1.02);
  });
});
