// A step that an error ends anywhere in its middle: no tensor stays behind, and where no weight was written the next step is as if nothing had been.
import { adalomo, lomo } from '@lomo/optim';
import type { OptimizerOptions } from '@lomo/optim';
import { isLomoError, LomoError } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import { bytesStore } from './bytes_store.ts';
import type { TrialOptions } from './trial.ts';
import { refusal, Trial } from './trial.ts';

const cases: readonly (readonly [string, Partial<TrialOptions>, () => OptimizerOptions])[] = [
  ['one batch, recomputed', { headForm: 'chunks' }, () => ({ rule: lomo })],
  ['kept tapes, kept factors, vocabulary tiles', { keeps: true, count: 2, accumulate: 'factors', headForm: 'tiles' }, () => ({ rule: adalomo() })],
  ['a tied buffer, small tiles, two passes', { tied: true, count: 2, accumulate: 'buffer', tileBytes: 64 }, () => ({ rule: lomo, clip: { norm: 0.3 } })],
  ['spilled to memory', { count: 2, headForm: 'tiles' }, () => ({ rule: lomo, clip: { norm: 0.3 }, spill: 'memory' })],
  ['spilled to a store', { count: 2, tied: true }, () => ({ rule: adalomo(), clip: { norm: 0.3 }, spill: bytesStore() })],
  ['f16, rehearsed', { dtype: 'f16', headForm: 'tiles' }, () => ({ rule: adalomo(), clip: { norm: 0.3 }, spill: 'memory' })],
];

describe.each(cases)('%s', (_, options, optimizer) => {
  test('whichever launch fails', async () => {
    const make = (): Trial => new Trial({ precision: 'f32', tokens: 16, ...options, optimizer: optimizer() });
    const [trial, clean] = [make(), make()];
    for (const each of [trial, clean]) await each.step(1);
    const { device } = trial;
    let [count, fails] = [0, Infinity];
    device.observer = {
      launched: (op) => {
        if (++count === fails) throw new LomoError('Injected', `launch ${count}, ${op.name}`);
      },
    };
    const { live } = device.arena;
    const owners = trial.parameters.map(({ block }) => block.owners);
    // A stride without common divisors with what repeats in a step.
    for (fails = 1; ; fails += 7) {
      count = 0;
      const error = await trial.step(2).then(() => null, (e: unknown) => e);
      if (error === null) break;
      expect(isLomoError(error, 'Injected'), `launch ${fails}`).toBe(true);
      expect(device.arena.live, `launch ${fails}`).toBe(live);
      expect(trial.parameters.map(({ block }) => block.owners)).toEqual(owners);
      expect([device.recorder, device.category]).toEqual([null, 'workspace']);
    }
    expect(fails).toBeGreaterThan(50);
    fails = Infinity;
    await clean.step(2);
    expect(device.arena.live).toBe(clean.device.arena.live);
  });

  test('a signal is honoured before the first update, whichever launch it comes at, and never between two', async () => {
    const make = (): Trial => new Trial({ precision: 'f32', tokens: 16, ...options, optimizer: optimizer() });
    const [trial, clean] = [make(), make()];
    for (const each of [trial, clean]) await each.step(1);
    const { device, program } = trial;
    const { live } = device.arena;
    const before = await trial.digest();
    let outcome = '';
    let stopped = 0;
    for (let at = 1; outcome !== 'done'; at += 8) {
      const controller = new AbortController();
      let count = 0;
      device.observer = { launched: () => void (++count === at && controller.abort()) };
      outcome = await program.run({ step: 2, seed: 1, lr: 0.1, batches: trial.batches(2), passes: trial.optimizer.passes, signal: controller.signal }).then(() => 'done', (e: unknown) => (isLomoError(e) ? e.code : String(e)));
      if (outcome === 'done') break;
      expect(outcome, `launch ${at}`).toBe('Interrupted');
      expect(await trial.digest(), `launch ${at}`).toBe(before);
      expect(device.arena.live, `launch ${at}`).toBe(live);
      stopped++;
    }
    expect(stopped).toBeGreaterThan(2);
    await clean.program.run({ step: 2, seed: 1, lr: 0.1, batches: clean.batches(2), passes: clean.optimizer.passes });
    expect(await trial.digest()).toBe(await clean.digest());
  });

  test('and the next step is as if nothing had been', async () => {
    const make = (): Trial => new Trial({ precision: 'f32', tokens: 16, ...options, optimizer: optimizer() });
    const [trial, clean] = [make(), make()];
    for (const fails of [2, 9]) {
      let count = 0;
      trial.device.observer = {
        launched: () => {
          if (++count === fails) throw new LomoError('Injected', `launch ${count}`);
        },
      };
      const before = await trial.digest();
      expect((await refusal(() => trial.step(1))).code).toBe('Injected');
      expect(await trial.digest()).toBe(before);
    }
    trial.device.observer = null;
    for (const each of [trial, clean]) for (let n = 1; n <= 2; n++) await each.step(n);
    expect(await trial.digest()).toBe(await clean.digest());
    expect(trial.device.arena.live).toBe(clean.device.arena.live);
  });
});

test('an evaluation that fails leaves nothing either', async () => {
  const trial = new Trial({ optimizer: { rule: lomo } });
  const { device } = trial;
  const before = await trial.program.evaluate(trial.batches(1));
  const { live } = device.arena;
  for (const fails of [1, 4, 9]) {
    let count = 0;
    device.observer = {
      launched: () => {
        if (++count === fails) throw new LomoError('Injected', `launch ${count}`);
      },
    };
    expect((await refusal(() => trial.program.evaluate(trial.batches(1)))).code).toBe('Injected');
    expect(device.arena.live).toBe(live);
  }
  device.observer = null;
  expect(await trial.program.evaluate(trial.batches(1))).toEqual(before);
});

test('an evaluation ends between two batches where its signal asks for it', async () => {
  const trial = new Trial({ optimizer: { rule: lomo } });
  const controller = new AbortController();
  let given = 0;
  const batches = function* () {
    for (const batch of trial.batches(1)) for (let i = 0; i < 3; i++) {
      if (++given === 2) controller.abort();
      yield batch;
    }
  };
  const { live } = trial.device.arena;
  await expect(trial.program.evaluate(batches(), { signal: controller.signal })).rejects.toMatchObject({ name: 'AbortError' });
  expect(given).toBe(2);
  expect(trial.device.arena.live).toBe(live);
});
