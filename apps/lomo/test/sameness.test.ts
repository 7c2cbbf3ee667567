// Training is a pure function of configuration, seed and data: equal bytes over threads, runs, splits, tiles, kept tapes and recomputation, on the CPU.
import { createHash } from 'node:crypto';
import { cpu } from '@lomo/cpu';
import type { CpuBackend } from '@lomo/cpu';
import { createModel, initialise } from '@lomo/models';
import { adalomo, adamw, lomo, Optimizer } from '@lomo/optim';
import type { Clip, Rule } from '@lomo/optim';
import type { HostBatch } from '@lomo/parallel';
import { Program } from '@lomo/parallel';
import type { Accumulation, HeadForm } from '@lomo/tensor';
import { Device, Random, weightGrad } from '@lomo/tensor';
import { afterAll, describe, expect, test } from 'vitest';

const config = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 64, intermediate_size: 160, num_hidden_layers: 2, num_attention_heads: 4,
  num_key_value_heads: 2, vocab_size: 1500, max_position_embeddings: 512, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu', tie_word_embeddings: true,
};
const vocabulary = config.vocab_size;
const segment = 64;

const backends = new Map<number, CpuBackend>();
const backendOf = (threads: number): CpuBackend => {
  const known = backends.get(threads) ?? cpu({ threads });
  backends.set(threads, known);
  return known;
};
afterAll(async () => {
  for (const backend of backends.values()) await backend[Symbol.asyncDispose]();
});

/** `tokens` tokens cut into `count` micro-batches; the same stream for every cut. */
function cut(tokens: number, count: number, seed: number): HostBatch[] {
  const random = new Random(seed);
  const ids = Int32Array.from(random.ints(tokens, vocabulary));
  const targets = ids.map((_, t) => (t % segment === segment - 1 || t % 7 === 0 ? -100 : ids[t + 1]!));
  const size = tokens / count;
  return Array.from({ length: count }, (_, m) => ({
    tokens: ids.slice(m * size, (m + 1) * size),
    targets: targets.slice(m * size, (m + 1) * size),
    positions: Int32Array.from({ length: size }, (_, t) => t % segment),
    starts: Int32Array.from({ length: size / segment + 1 }, (_, s) => s * segment),
  }));
}

interface Case {
  readonly threads?: number;
  readonly count?: number;
  readonly tokens?: number;
  readonly rule?: Rule;
  readonly clip?: Clip;
  readonly keeps?: boolean;
  readonly accumulate?: Accumulation;
  readonly headForm?: HeadForm;
  readonly tileBytes?: number;
  readonly tied?: boolean;
}

/** SHA-256 of all weights after three steps. */
async function trained(options: Case): Promise<string> {
  const { threads = 2, count = 1, tokens = 2048, rule = lomo, keeps = false, tied = true, tileBytes } = options;
  const device = new Device(backendOf(threads), { bytes: 96 * 2 ** 20, ...(tileBytes === undefined ? {} : { tileBytes }) });
  const model = createModel({ ...config, tie_word_embeddings: tied }, device);
  initialise(model, 7);
  const optimizer = new Optimizer(device, model.parameters, { rule, weightDecay: 0.01, ...(options.clip === undefined ? {} : { clip: options.clip }) });
  const size = tokens / count;
  const program = new Program(device, model, {
    microBatches: count,
    tokens: size,
    maxSegments: size / segment,
    maxLength: segment,
    keeps: (stage) => keeps && stage < model.stages.length - 1,
    ...(options.accumulate === undefined ? {} : { accumulate: options.accumulate }),
    ...(options.headForm === undefined ? {} : { headForm: options.headForm }),
  });
  for (let step = 1; step <= 3; step++) await program.run({ step, seed: 1, lr: 0.02, batches: cut(tokens, count, step), passes: optimizer.passes });
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  device.free();
  return hash.digest('hex');
}

describe.each([
  ['lomo', lomo],
  ['adalomo', adalomo()],
  ['adamw', adamw()],
])('%s', (_, rule) => {
  test('two runs, and 1, 2 and 4 threads', async () => {
    const first = await trained({ rule });
    expect(await trained({ rule })).toBe(first);
    expect(await trained({ rule, threads: 1 })).toBe(first);
    expect(await trained({ rule, threads: 4 })).toBe(first);
  });

  test('kept tapes are recomputation', async () => {
    expect(await trained({ rule, keeps: true })).toBe(await trained({ rule, keeps: false }));
  });

  test('k micro-batches of m are one batch of k m: kept factors for any split, a buffer for whole chunks', async () => {
    const one = await trained({ rule, headForm: 'tiles' });
    expect(await trained({ rule, headForm: 'tiles', count: 4, accumulate: 'factors' })).toBe(one);
    expect(await trained({ rule, headForm: 'tiles', count: 16, accumulate: 'factors' })).toBe(one);
    expect(await trained({ rule, headForm: 'tiles', count: 4, accumulate: 'buffer' })).toBe(one);
    expect(await trained({ rule, headForm: 'chunks', count: 4, accumulate: 'buffer' })).toBe(await trained({ rule, headForm: 'chunks' }));
  });
});

test('tile sizes cannot be seen', async () => {
  const whole = await trained({ headForm: 'tiles', tied: false });
  expect(await trained({ headForm: 'tiles', tied: false, tileBytes: 64 * 64 * 4 })).toBe(whole);
  expect(await trained({ headForm: 'tiles', tied: false, tileBytes: 128 * 64 * 4 })).toBe(whole);
});

test('clipping by the global norm, for every split', async () => {
  const clip = { norm: 0.5 };
  const one = await trained({ clip, headForm: 'tiles' });
  expect(await trained({ clip, headForm: 'tiles', count: 8, accumulate: 'factors', threads: 1 })).toBe(one);
  expect(await trained({ clip: { norm: 1e9 }, headForm: 'tiles' })).toBe(await trained({ headForm: 'tiles' }));
});

test('a 64 x 64 weight gradient over 8192 tokens, on 1, 2 and 4 threads', async () => {
  const digests: string[] = [];
  for (const threads of [1, 2, 4]) {
    const device = new Device(backendOf(threads), { bytes: 16 * 2 ** 20 });
    const random = new Random(3);
    const [dy, x] = [0, 1].map(() => {
      const tensor = device.allocate({ shape: [8192, 64], dtype: 'f32' }, 'workspace');
      device.writeNumbers(tensor, random.normal(8192 * 64));
      return tensor;
    });
    const tile = device.allocate({ shape: [64, 64], dtype: 'f32' }, 'gradient');
    weightGrad(tile, dy!, x!, { row: 0, add: false });
    digests.push(createHash('sha256').update(new Uint8Array((await device.read(tile)).buffer)).digest('hex'));
    device.free();
  }
  expect(new Set(digests).size).toBe(1);
});
