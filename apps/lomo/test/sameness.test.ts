// Training is a pure function of configuration, seed and data: equal bytes over threads, runs, splits, tiles, kept tapes and recomputation, on the CPU.
import { createHash } from 'node:crypto';
import { cpu } from '@lomo/cpu';
import type { CpuBackend } from '@lomo/cpu';
import { adalomo, adamw, lomo } from '@lomo/optim';
import { Device, Random, weightGrad } from '@lomo/tensor';
import { afterAll, describe, expect, test } from 'vitest';
import type { SmallOptions } from './small.ts';
import { cut, small } from './small.ts';

const backends = new Map<number, CpuBackend>();
const backendOf = (threads: number): CpuBackend => {
  const known = backends.get(threads) ?? cpu({ threads });
  backends.set(threads, known);
  return known;
};
afterAll(async () => {
  for (const backend of backends.values()) await backend[Symbol.asyncDispose]();
});

interface Case extends Omit<SmallOptions, 'tokens' | 'microBatches'> {
  readonly threads?: number;
  /** Micro-batches that the step's 2048 tokens are cut into. */
  readonly count?: number;
}

const tokens = 2048;

/** SHA-256 of all weights after three steps. */
async function trained(options: Case): Promise<string> {
  const { threads = 2, count = 1, ...rest } = options;
  const { device, model, optimizer, program } = small(backendOf(threads), { ...rest, microBatches: count, tokens: tokens / count });
  for (let step = 1; step <= 3; step++) {
    await program.run({ step, seed: 1, lr: 0.02, batches: cut(tokens, count, { seed: step }), passes: optimizer.passes });
  }
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
  const whole = await trained({ headForm: 'tiles', config: { tie_word_embeddings: false } });
  expect(await trained({ headForm: 'tiles', config: { tie_word_embeddings: false }, tileBytes: 64 * 64 * 4 })).toBe(whole);
  expect(await trained({ headForm: 'tiles', config: { tie_word_embeddings: false }, tileBytes: 128 * 64 * 4 })).toBe(whole);
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
