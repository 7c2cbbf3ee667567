// The plan contract on CUDA: a plan made without a GPU is what a step allocates, to the byte and the offset; nothing native is allocated from the
// second step on, and the thread that feeds the queues does not wait for the device inside a step.
import type { CudaBackend } from '@lomo/cuda';
import { adalomo, lomo } from '@lomo/optim';
import { makePlan, underPlan } from '@lomo/parallel';
import { Device } from '@lomo/tensor';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { double } from '../../../packages/cuda/test/double.ts';
import { make, step } from './steps.ts';
import type { StepsOptions } from './steps.ts';

let backend: CudaBackend;
beforeAll(() => {
  backend = double();
});
afterAll(() => backend[Symbol.asyncDispose]());

test.each<readonly [string, StepsOptions]>([
  ['lomo, f32, tied, the head by token chunks', { rule: lomo, headForm: 'chunks' }],
  ['adalomo, bf16, two micro-batches, kept, the norm in two passes', { rule: adalomo(), dtype: 'bf16', count: 2, keeps: true, headForm: 'tiles', clip: { norm: 0.5 } }],
  ['lomo, f16, untied, gradients aside in memory', { rule: lomo, dtype: 'f16', headForm: 'tiles', clip: { norm: 0.5 }, spill: 'memory', config: { tie_word_embeddings: false } }],
])('%s', async (_, options) => {
  const plan = await makePlan(backend, function* (on) {
    let made: ReturnType<typeof make> | null = null;
    yield { name: 'setup', run: () => void (made = make(backend, { ...options, on })) };
    yield { name: 'step', run: async () => void (await step(made!, 1)) };
  });
  expect(plan.phases.get('step')!.length).toBeGreaterThan(100);
  const before = backend.reserved();
  const device = new Device(backend, { bytes: plan.extent });
  expect(backend.reserved() - before).toBe(plan.extent);
  const made = await underPlan(device, plan, { name: 'setup', body: () => make(backend, { ...options, on: device }) });
  for (let n = 1; n <= 4; n++) {
    const start = backend.counters();
    // Throws PlanMismatch where category, bytes or offset of any allocation differ from the plan's.
    await underPlan(device, plan, { name: 'step', body: () => step(made, n) });
    const end = backend.counters();
    if (n >= 2) expect(end.allocations - start.allocations, `native allocations in step ${n}`).toBe(0);
    // Reads are waited for by a thread of their own, those of gradients that wait in memory too.
    expect(end.waits - start.waits, `waits of step ${n}`).toBe(0);
    expect(end.launches).toBeGreaterThan(start.launches);
  }
  expect(backend.reserved() - before).toBe(plan.extent);
  device.free();
  expect(backend.reserved()).toBe(before);
});
