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

test('a stage whose weights are away cannot be read, and says so', async () => {
  const trial = await new Trial({ ...common, optimizer: { rule: lomo }, stream: bytesStore() }).load();
  const p = trial.parameter('block 1.q');
  expect([p.away, trial.parameter('embed').away]).toEqual([true, true]);
  expect(() => p.rows(0, 1)).toThrow(/block 1\.q is not on the device: its stage is not gathered/);
  const tied = new Trial({ ...common, tied: true, optimizer: { rule: lomo }, stream: bytesStore() });
  // Two stages read it: it stays.
  expect([tied.parameter('embed').away, tied.residence!.resident]).toEqual([false, tied.parameter('embed').bytes]);
  expect(printSchedule(trial.program.actions)).toMatch(/^gather weights 0\ngather weights 1\nF0: 0\nrelease weights 0/);
});

describe('a step that is given up', () => {
  const made = async (): Promise<Trial> => new Trial({ ...common, count: 2, optimizer: { rule: lomo }, stream: bytesStore(), offload: bytesStore() }).load();

  test('before anything was written back leaves weights as they were; after that, weights that nobody takes for whole', async () => {
    const [clean, trial] = [await made(), await made()];
    let total = 0;
    clean.device.observer = { launched: () => void total++ };
    const before = await trial.digest();
    await clean.step(1);
    const { live } = clean.device.arena;
    const seen = { whole: 0, torn: 0 };
    for (let fails = 1; fails <= total; fails += 37) {
      let count = 0;
      trial.device.observer = {
        launched: () => {
          if (++count === fails) throw new LomoError('Injected', `launch ${count}`);
        },
      };
      expect((await refusal(() => trial.step(1))).code).toBe('Injected');
      trial.device.observer = null;
      expect(trial.device.arena.live).toBe(live);
      const after = await trial.digest().catch((error: unknown) => error);
      if (isLomoError(after)) {
        seen.torn++;
        expect(after.message).toMatch(/a step that was given up had written some weights back; load a checkpoint/);
        expect((await refusal(() => trial.step(1))).code).toBe('TornStore');
        expect(trial.device.arena.live).toBe(live);
      } else seen.whole++;
      await trial.load();
      expect(await trial.digest()).toBe(before);
    }
    expect([seen.whole > 3, seen.torn > 3]).toEqual([true, true]);
    await trial.step(1);
    expect(await trial.digest()).toBe(await clean.digest());
  });

  test.each(['read', 'write'] as const)('by a store whose %s fails: the call is named, nothing stays behind, and what was not written back is not torn', async (verb) => {
    const clean = await made();
    const before = await clean.digest();
    const { live } = clean.device.arena;
    const codes = new Set<string>();
    for (let nth = 1; nth <= (verb === 'read' ? 73 : 43); nth += 6) {
      let armed = false;
      let count = 0;
      const store = bytesStore((called) => armed && called === verb && ++count === nth);
      const trial = await new Trial({ ...common, count: 2, optimizer: { rule: lomo }, stream: store, offload: bytesStore() }).load();
      armed = true;
      const error = await refusal(() => trial.step(1));
      codes.add(error.code);
      expect(error.message).toMatch(new RegExp(`${verb} /scratch/spill: EIO`));
      expect(trial.device.arena.live).toBe(live);
      if (error.code === 'FileError') expect(await trial.digest()).toBe(before);
      else expect(error.cause).toMatchObject({ code: 'FileError' });
    }
    expect([...codes].toSorted()).toEqual(verb === 'read' ? ['FileError', 'TornStep'] : ['TornStep']);
  });
});
