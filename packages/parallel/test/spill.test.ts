// Spilled gradients give the bits of a second backward: every rule, dtype, split, tied or not, kept or recomputed, in the arena or in a store.
import { adalomo, adamw, lomo, sgd } from '@lomo/optim';
import type { Clip, Rule, Spill } from '@lomo/optim';
import { Device } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import { makePlan, underPlan } from '../src/index.ts';
import { bytesStore } from './bytes_store.ts';
import type { TrialOptions } from './trial.ts';
import { referenceBackend, refusal, Trial } from './trial.ts';

const rules: readonly Rule[] = [lomo, adalomo(), adamw(), sgd];

async function after(options: TrialOptions, spill: Spill | null): Promise<{ readonly digest: string; readonly norms: readonly number[] }> {
  // Stores hold f32, so the arithmetic must.
  const trial = new Trial({ precision: 'f32', ...options, optimizer: { ...options.optimizer, ...(spill === null ? {} : { spill }) } });
  const before = await trial.digest();
  const { live } = trial.device.arena;
  const norms: number[] = [];
  for (let n = 1; n <= 2; n++) norms.push((await trial.step(n)).gradNorm);
  expect(trial.device.arena.live).toBe(live);
  const digest = await trial.digest();
  expect(digest).not.toBe(before);
  return { digest, norms };
}

const judged: readonly (readonly [string, { readonly clip?: Clip; readonly atomic?: boolean }])[] = [
  ['global norm', { clip: { norm: 0.3 } }],
  ['atomic', { atomic: true, clip: { value: 0.02 } }],
];

describe.each(rules.map((rule) => [rule.name, rule] as const))('%s', (_, rule) => {
  test.each(judged)('%s: the bits of two backward passes', async (_name, how) => {
    for (const dtype of ['f32', 'bf16'] as const) for (const split of [{ count: 1 }, { count: 4, accumulate: 'factors' }, { count: 4, accumulate: 'buffer' }] as const) {
      for (const [tied, keeps, headForm] of [[false, false, 'chunks'], [true, true, 'chunks'], [false, true, 'tiles'], [true, false, 'tiles']] as const) {
        const options: TrialOptions = { dtype, tied, keeps, headForm, ...split, optimizer: { rule, weightDecay: 0.1, ...how } };
        const twice = await after(options, null);
        expect(await after(options, 'memory'), `${dtype}, ${split.count}, tied ${tied}, kept ${keeps}, ${headForm}`).toEqual(twice);
        expect(await after(options, bytesStore())).toEqual(twice);
      }
    }
  });
});

test('f16 and parameters’ own norms, judged first: the bits of two backward passes', async () => {
  for (const rule of rules) for (const clip of [{ norm: 0.2 }, { norm: 0.05, scope: 'parameter' as const }, {}]) {
    const options: TrialOptions = { dtype: 'f16', count: 2, optimizer: { rule, clip, atomic: true } };
    const twice = await after(options, null);
    expect(await after(options, 'memory')).toEqual(twice);
    expect(await after(options, bytesStore())).toEqual(twice);
  }
});

test('an embedding is spilled as its rows, where these are fewer than the table has', async () => {
  const spilled = async (vocabulary: number, extra: Partial<TrialOptions> = {}): Promise<number> => {
    const trial = new Trial({ vocabulary, ...extra, optimizer: { rule: lomo, clip: { norm: 0.3 }, spill: 'memory' }, headForm: 'chunks' });
    await trial.step(1);
    const others = trial.parameters.filter((p) => p.path !== 'embed').reduce((sum, p) => sum + 4 * p.shape.reduce((a, b) => a * b), 0);
    return trial.optimizer.spilledBytes - others;
  };
  expect(await spilled(64)).toBe(32 * (4 + 8 * 4));
  expect(await spilled(19)).toBe(19 * 8 * 4);
  expect(await spilled(64, { count: 4, accumulate: 'factors' })).toBe(32 * (4 + 8 * 4));
  expect(await spilled(64, { count: 4, accumulate: 'buffer' })).toBe(64 * 8 * 4);
});

describe('memory', () => {
  test.each(['memory', 'store'] as const)('%s: the run is its plan, and the plan shows what is spilled', async (kind) => {
    const options: TrialOptions = { blocks: 3, count: 2, optimizer: { rule: adalomo(), clip: { norm: 0.3 }, spill: kind === 'memory' ? kind : bytesStore() } };
    const plan = await makePlan(referenceBackend(options), function* (on) {
      let trial: Trial | null = null;
      yield { name: 'load', run: () => void (trial = new Trial({ ...options, on })) };
      yield { name: 'step', run: async () => void (await trial!.step(1)) };
    });
    const on = new Device(referenceBackend(options), { bytes: plan.extent });
    const trial = await underPlan(on, plan, { name: 'load', body: () => new Trial({ ...options, on }) });
    for (let n = 1; n <= 3; n++) await underPlan(on, plan, { name: 'step', body: () => trial.step(n) });
    expect(on.arena.extent).toBe(plan.extent);
    expect(on.arena.usage.spill.peak).toBe(plan.byCategory.spill);
    const bytes = trial.optimizer.spilledBytes;
    if (kind === 'memory') expect(plan.byCategory.spill).toBeGreaterThanOrEqual(bytes);
    else expect(plan.byCategory.spill).toBeLessThan(bytes / 2);
  });

  test('in a store, the arena never holds more than one stage, however many there are', async () => {
    const peak = async (blocks: number): Promise<number> => {
      const trial = new Trial({ blocks, hidden: 16, optimizer: { rule: lomo, clip: { norm: 0.3 }, spill: bytesStore() } });
      await trial.step(1);
      return trial.device.arena.usage.spill.peak;
    };
    expect(await peak(5)).toBe(await peak(2));
  });
});

describe('a store that fails', () => {
  test('while it is written: no weight changes, the error names path and errno, and the next step is as if this one had not been', async () => {
    let broken = 3;
    const store = bytesStore((verb, count) => verb === 'write' && count === broken);
    const options: TrialOptions = { precision: 'f32', count: 2, optimizer: { rule: adamw(), clip: { norm: 0.3 } } };
    const trial = new Trial({ ...options, optimizer: { ...options.optimizer, spill: store } });
    const [before, { live }] = [await trial.digest(), trial.device.arena];
    const error = await refusal(() => trial.step(1));
    expect([error.code, error.details['errno']]).toEqual(['FileError', 'EIO']);
    expect(error.message).toMatch(/write \/scratch\/spill: EIO/);
    expect(await trial.digest()).toBe(before);
    expect(trial.device.arena.live).toBe(live);
    broken = 0;
    await trial.step(2);
    const other = new Trial(options);
    await other.step(2);
    expect(await trial.digest()).toBe(await other.digest());
  });

  test('while it is read back: before the first update nothing has happened; later the step is torn, and says so', async () => {
    for (const broken of [1, 5]) {
      const store = bytesStore((verb, count) => verb === 'read' && count === broken);
      const trial = new Trial({ precision: 'f32', optimizer: { rule: lomo, clip: { norm: 0.3 }, spill: store } });
      const [before, live] = [await trial.digest(), trial.device.arena.live];
      const error = await refusal(() => trial.step(1));
      expect(error.message).toMatch(/read \/scratch\/spill: EIO/);
      expect(trial.device.arena.live).toBe(live);
      if (broken === 1) expect([error.code, await trial.digest()]).toEqual(['FileError', before]);
      else expect([error.code, (await trial.digest()) === before]).toEqual(['TornStep', false]);
    }
  });
});
