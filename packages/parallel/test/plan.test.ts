// Plan = real: the program run without data makes the very allocations of the run, and the first that differs is named.
import { lomo } from '@lomo/optim';
import { defineOp, Device, erase, isLomoError } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import type { MemoryPlan } from '../src/index.ts';
import { makePlan, underPlan } from '../src/index.ts';
import type { TrialOptions } from './trial.ts';
import { referenceBackend, Trial } from './trial.ts';

function planOf(options: TrialOptions): Promise<MemoryPlan> {
  return makePlan(referenceBackend(options), function* (on) {
    let trial: Trial | null = null;
    yield { name: 'load', run: () => void (trial = new Trial({ ...options, on })) };
    yield { name: 'step', run: async () => void (await trial!.step(1)) };
    yield { name: 'evaluate', run: async () => void (await trial!.program.evaluate(trial!.batches(1))) };
  });
}

/** A trial in a memory of exactly the planned size, loaded under its plan. */
async function planned(options: TrialOptions): Promise<{ readonly plan: MemoryPlan; readonly trial: Trial }> {
  const plan = await planOf(options);
  const on = new Device(referenceBackend(options), { bytes: plan.extent });
  const trial = await underPlan(on, plan, { name: 'load', body: () => new Trial({ ...options, on }) });
  return { plan, trial };
}

async function mismatch(body: () => Promise<unknown>): Promise<string> {
  const error = await body().then(() => null, (e: unknown) => e);
  if (isLomoError(error, 'PlanMismatch')) return error.message;
  throw error ?? new Error('the run went as planned');
}

describe('the run is its plan, allocation by allocation', () => {
  const cases: readonly (readonly [string, Partial<TrialOptions>])[] = [
    ['one batch, recomputed', {}],
    ['kept tapes', { keeps: true, count: 2 }],
    ['kept factors, tied', { tied: true, count: 4, accumulate: 'factors' }],
    ['a buffer, vocabulary tiles', { count: 4, accumulate: 'buffer', headForm: 'tiles' }],
    ['two passes', { count: 2, optimizer: { rule: lomo, clip: { norm: 1 } } }],
    ['bf16', { dtype: 'bf16', count: 2 }],
  ];
  test.each(cases)('%s', async (_, options) => {
    const { plan, trial } = await planned({ optimizer: { rule: lomo }, ...options });
    const { arena } = trial.device;
    for (let n = 1; n <= 3; n++) await underPlan(trial.device, plan, { name: 'step', body: () => trial.step(n) });
    await underPlan(trial.device, plan, { name: 'evaluate', body: () => trial.program.evaluate(trial.batches(4)) });
    expect([arena.extent, arena.peak]).toEqual([plan.extent, plan.peak]);
    for (const [category, { peak }] of Object.entries(arena.usage)) expect(peak, category).toBe(plan.byCategory[category as keyof typeof plan.byCategory]);
    expect(Object.values(plan.atPeak).reduce((a, b) => a + b)).toBe(plan.peak);
    expect(plan.phases.get('step')!.length).toBeGreaterThan(50);
    expect([plan.flops.get('step')! > 2 * plan.flops.get('evaluate')!, plan.launches.get('step')! > plan.launches.get('evaluate')!]).toEqual([true, true]);
  });
});

describe('what was not planned is named', () => {
  const options: TrialOptions = { optimizer: { rule: lomo }, count: 2 };

  test('an allocation more, at the place where it happens', async () => {
    const { plan, trial } = await planned(options);
    const first = plan.phases.get('step')![0]!;
    const message = await mismatch(() => underPlan(trial.device, plan, {
      name: 'step',
      body: () => {
        trial.device.allocate({ shape: [100], dtype: 'f32' }, 'state');
        return trial.step(1);
      },
    }));
    expect(message).toContain(`step, allocation 1: met 512 bytes of state at ${first.offset} for state, in step; planned was ${first.bytes} bytes of ${first.category} at ${first.offset} for `);
  });

  test('a plan with one allocation altered, in size, place or purpose: the very first that differs', async () => {
    for (const change of [{ bytes: 1 << 19 }, { offset: 1 << 19 }, { category: 'io' as const }]) {
      const { plan, trial } = await planned(options);
      const altered = plan.phases.get('step')!.map((a, i) => (i === 20 ? { ...a, ...change } : a));
      const message = await mismatch(() => underPlan(trial.device, { ...plan, phases: new Map([['step', altered]]) }, { name: 'step', body: () => trial.step(1) }));
      expect(message).toMatch(/^step, allocation 21: /);
    }
  });

  test('allocations that do not come, a phase that is not there, and the observer is the old one afterwards', async () => {
    const { plan, trial } = await planned(options);
    const count = plan.phases.get('step')!.length;
    expect(await mismatch(() => underPlan(trial.device, plan, { name: 'step', body: () => {} }))).toMatch(new RegExp(`^step: 0 allocations, planned were ${count}; the first that never came: \\d+ bytes of \\w+ at \\d+ for `));
    expect(await mismatch(() => underPlan(trial.device, plan, { name: 'export', body: () => {} }))).toBe("the plan has no phase 'export' (has: load, step, evaluate)");
    expect(trial.device.arena.observer).toBeNull();
  });

  test('more micro-batches than planned do not fit: out of memory, with the numbers', async () => {
    const plan = await planOf(options);
    const on = new Device(referenceBackend(), { bytes: plan.extent });
    const larger = new Trial({ ...options, on, count: 4, tokens: 64 });
    const error = await larger.step(1).then(() => null, (e: unknown) => e);
    expect(isLomoError(error, 'OutOfMemory')).toBe(true);
    expect(String(error)).toMatch(new RegExp(`arena of ${plan.extent} bytes cannot place \\d+ bytes`));
  });
});

test('an op that says its result is like its input gets a tensor of its own', () => {
  const twice = defineOp({
    name: 'twice',
    attributes: [],
    dtypes: ['f32'],
    infer: (ins) => [ins[0]!],
    reference: ({ ins, outs }) => ins[0]!.data.forEach((x, i) => (outs[0]!.data[i] = 2 * x)),
    flops: () => 1,
    sample: () => ({ ins: [], attributes: {} }),
  });
  const backend = referenceBackend({ ops: [erase(twice)] });
  const device = new Device(backend, { bytes: 4096 });
  const x = device.allocate({ shape: [2], dtype: 'f32' }, 'workspace');
  device.writeNumbers(x, [1, 2]);
  const y = device.run(twice, { ins: [x] }, {})[0]!;
  expect(y.offset).not.toBe(x.offset);
  expect([[...backend.readExact(x)], [...backend.readExact(y)]]).toEqual([[1, 2], [2, 4]]);
});
