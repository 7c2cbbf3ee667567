// Weights that come and go: the bits of weights that stay, two or three stages on the device whatever the depth, and no half-written store taken for whole.
import { adalomo, adamw, lomo } from '@lomo/optim';
import type { OptimizerOptions } from '@lomo/optim';
import { Device, isLomoError, LomoError } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import { makePlan, printSchedule, underPlan } from '../src/index.ts';
import { bytesStore } from './bytes_store.ts';
import type { TrialOptions } from './trial.ts';
import { referenceBackend, refusal, trained, Trial } from './trial.ts';

const blocks = 4;
/** Held in f32 as on a device, so that going to the store and back changes nothing. */
const common = { blocks, precision: 'f32' } as const;

const cases: readonly (readonly [string, Partial<TrialOptions>, () => OptimizerOptions])[] = [
  ['lomo', {}, () => ({ rule: lomo })],
  ['tied, 4 micro-batches, kept factors', { tied: true, count: 4, accumulate: 'factors' }, () => ({ rule: lomo, weightDecay: 0.1 })],
  ['two passes, a buffer', { count: 2, accumulate: 'buffer' }, () => ({ rule: lomo, clip: { norm: 0.1 } })],
  ['kept tapes', { keeps: true, count: 2 }, () => ({ rule: adamw() })],
  ['kept tapes, two passes', { keeps: true }, () => ({ rule: lomo, clip: { norm: 0.1 } })],
  ['spilled in memory', { count: 2 }, () => ({ rule: adalomo(), clip: { norm: 0.1 }, spill: 'memory' })],
  ['spilled into a store, tied', { tied: true }, () => ({ rule: lomo, clip: { norm: 0.1 }, spill: bytesStore() })],
  ['bf16, vocabulary tiles', { dtype: 'bf16', headForm: 'tiles' }, () => ({ rule: adalomo() })],
  ['f16, rehearsed', { dtype: 'f16' }, () => ({ rule: lomo, clip: { norm: 0.1 } })],
  ['f16, rehearsed from a spill', { dtype: 'f16' }, () => ({ rule: lomo, clip: { norm: 0.1 }, spill: 'memory' })],
  ['depth first', { count: 2, schedule: ({ placement, microBatches }) => {
    const last = placement.length - 1;
    return Array.from({ length: microBatches }, (_, microBatch) => [
      ...placement.slice(0, last).map((__, stage) => ({ kind: 'forward' as const, stage, microBatch })),
      ...placement.map((__, i) => ({ kind: 'backward' as const, stage: last - i, microBatch })),
    ]).flat();
  } }, () => ({ rule: lomo })],
  ['frozen blocks', { trainable: (path) => !path.startsWith('block 1') }, () => ({ rule: lomo })],
];

describe.each(cases)('%s', (_, options, optimizer) => {
  test('streamed, offloaded, and both: the bits of what stays', async () => {
    const resident = await trained({ ...common, ...options, optimizer: optimizer() });
    const ways: Partial<TrialOptions>[] = [{ stream: bytesStore() }, { offload: bytesStore() }, { stream: bytesStore(), offload: bytesStore() }];
    for (const way of ways) expect(await trained({ ...common, ...options, ...way, optimizer: optimizer() })).toBe(resident);
  });

  test('the run is its plan, and leaves the arena as it found it', async () => {
    const streamed = (): TrialOptions => ({ ...common, ...options, stream: bytesStore(), offload: bytesStore(), optimizer: optimizer() });
    const plan = await makePlan(referenceBackend(common), function* (on) {
      let trial: Trial | null = null;
      yield { name: 'load', run: () => void (trial = new Trial({ ...streamed(), on })) };
      yield { name: 'step', run: async () => void (await trial!.step(1)) };
      yield { name: 'evaluate', run: async () => void (await trial!.program.evaluate(trial!.batches(1))) };
    });
    const on = new Device(referenceBackend(common), { bytes: plan.extent });
    const trial = await underPlan(on, plan, { name: 'load', body: () => new Trial({ ...streamed(), on }) });
    await trial.load();
    const { live } = on.arena;
    for (let n = 1; n <= 2; n++) {
      await underPlan(on, plan, { name: 'step', body: () => trial.step(n) });
      expect(on.arena.live).toBe(live);
    }
    await underPlan(on, plan, { name: 'evaluate', body: () => trial.program.evaluate(trial.batches(4)) });
    expect([on.arena.extent, on.arena.live]).toEqual([plan.extent, live]);
  });
});
