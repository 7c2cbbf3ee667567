// The mission on CUDA's kernels: fused is backward-then-step, bit by bit, for plain, tied, recomputed and accumulated steps; and a step is the
// CPU's within the golden bars.
import { cpu } from '@lomo/cpu';
import type { CudaBackend } from '@lomo/cuda';
import { adalomo, adamw, lomo, sgd } from '@lomo/optim';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { double } from '../../../packages/cuda/test/double.ts';
import { digest, make, step, unfused } from './steps.ts';
import type { StepsOptions } from './steps.ts';

let backend: CudaBackend;
beforeAll(() => {
  backend = double();
});
afterAll(() => backend[Symbol.asyncDispose]());

const untied = { config: { tie_word_embeddings: false } };
/** Each rule, each clip, each split, both heads, tied or not, kept or recomputed, each dtype: every value in some row. */
const rows: readonly (readonly [string, StepsOptions])[] = [
  ['lomo, tied, recomputed', { rule: lomo, headForm: 'chunks' }],
  ['lomo, four micro-batches as factors, norm in two passes', { rule: lomo, count: 4, accumulate: 'factors', clip: { norm: 0.3 }, headForm: 'tiles' }],
  ['adalomo, untied, kept, four micro-batches in a buffer', { rule: adalomo(), count: 4, accumulate: 'buffer', keeps: true, headForm: 'chunks', ...untied }],
  ['adamw, untied, bf16, rounded stochastically', { rule: adamw(), dtype: 'bf16', headForm: 'tiles', ...untied }],
  ["sgd, f16, parameters' own norms, two micro-batches", { rule: sgd, dtype: 'f16', count: 2, clip: { norm: 0.2, scope: 'parameter' }, headForm: 'tiles' }],
];

describe('fused is unfused', () => {
  test.each(rows)('%s', async (_, options) => {
    const [fused, other] = [make(backend, options), make(backend, options)];
    const before = await digest(fused);
    const { live } = fused.device.arena;
    for (let n = 1; n <= 2; n++) {
      const results = [await step(fused, n), await unfused(other, n)];
      expect(results[0]!.loss).toBe(results[1]!.loss);
      expect(await digest(fused), `step ${n}`).toBe(await digest(other));
    }
    expect(await digest(fused)).not.toBe(before);
    expect(fused.device.arena.live).toBe(live);
    for (const { device } of [fused, other]) device.free();
  });
});

// shared/golden/README.md: four times the distance of two float32 implementations, by steps; AdamW moves single weights by a share of the rate.
const weightBar = { 1: 4e-7, 5: 1.6e-6 } as const;
const adamwBar = 2e-4;
const lossBar = 2e-6;

describe('a step is the one that the CPU makes', () => {
  test.each([['lomo', lomo], ['adamw', adamw()]] as const)('%s: loss and weights after 1 and 5 steps, in f32', async (name, rule) => {
    const host = cpu({ threads: 1 });
    const [here, there] = [make(backend, { rule, count: 2 }), make(host, { rule, count: 2 })];
    const far: string[] = [];
    for (let n = 1; n <= 5; n++) {
      const results = [await step(here, n, { lr: 1e-3 }), await step(there, n, { lr: 1e-3 })];
      expect(Math.abs(results[0]!.loss - results[1]!.loss), `loss of step ${n}`).toBeLessThan(lossBar);
      if (n !== 1 && n !== 5) continue;
      const bar = name === 'adamw' ? adamwBar : weightBar[n];
      for (const [i, p] of here.model.parameters.entries()) {
        const [got, want] = [await here.device.readNumbers(p), await there.device.readNumbers(there.model.parameters[i]!)];
        const largest = want.reduce((m, x) => Math.max(m, Math.abs(x)), 0), off = got.reduce((m, x, j) => Math.max(m, Math.abs(x - want[j]!)), 0);
        if (!(off <= bar * largest)) far.push(`${p.path} after ${n}: ${(off / largest).toExponential(1)} of its largest value, ${bar} allowed`);
      }
    }
    expect(far).toEqual([]);
    for (const { device } of [here, there]) device.free();
    await host[Symbol.asyncDispose]();
  });
});
