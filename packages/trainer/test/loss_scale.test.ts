// The loss scale: it changes no bit while nothing overflows, shrinks until nothing does, grows again, and is part of a run's state.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import type { FitEvent, RunInput, Session } from '../src/index.ts';
import { fit, listCheckpoints, LossScale, parseRun, readState } from '../src/index.ts';
import { open, settings } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function opened(changes: Partial<RunInput>): Promise<Session> {
  const session = await open(changes);
  sessions.push(session);
  return session;
}

async function digest({ assembly: { device, model, optimizer } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

interface Run {
  readonly events: readonly FitEvent[];
  readonly digest: string;
  readonly error: unknown;
}

/** Runs to the end or to the step after which it is stopped; a rejected step must leave every byte as it was. */
async function run(session: Session, stopAfter = Infinity): Promise<Run> {
  const events: FitEvent[] = [];
  const controller = new AbortController();
  let before = await digest(session);
  let error: unknown = null;
  try {
    for await (const event of fit(session, { signal: controller.signal })) {
      events.push(event);
      const now = await digest(session);
      if (event.kind === 'rejected') expect(now, `rejected step ${event.step}`).toBe(before);
      before = now;
      if (event.kind !== 'saved' && event.step >= stopAfter) controller.abort();
    }
  } catch (thrown) {
    error = thrown;
  }
  return { events, digest: await digest(session), error };
}

const steps = ({ events }: Run) => events.flatMap((e) => (e.kind === 'step' ? [e] : []));
const rejected = ({ events }: Run) => events.flatMap((e) => (e.kind === 'rejected' ? [e] : []));
const told = (r: Run) => steps(r).map(({ loss, gradNorm, clipCoefficient }) => ({ loss, gradNorm, clipCoefficient }));

describe('the scale itself', () => {
  test('doubles after so many good steps, halves at once, stays within its bounds', () => {
    const scale = new LossScale({ initial: 4, growth_steps: 3, least: 2, largest: 8 });
    const seen: number[] = [];
    for (let i = 0; i < 7; i++) {
      seen.push(scale.value);
      scale.accept();
    }
    expect(seen).toEqual([4, 4, 4, 8, 8, 8, 8]);
    expect([scale.shrink(), scale.value, scale.shrink(), scale.value, scale.shrink(), scale.value]).toEqual([true, 4, true, 2, false, 2]);
    // The count begins anew after an overflow.
    for (let i = 0; i < 2; i++) scale.accept();
    expect(scale.shrink()).toBe(false);
    for (let i = 0; i < 2; i++) scale.accept();
    expect(scale.value).toBe(2);
    scale.accept();
    expect(scale.value).toBe(4);
  });

  test('begins at 65536 and doubles after 2,000 steps, as users of AMP expect', () => {
    const scale = new LossScale('dynamic');
    for (let i = 0; i < 1999; i++) scale.accept();
    expect(scale.value).toBe(65536);
    scale.accept();
    expect(scale.value).toBe(131072);
  });

  test('a fixed one, and none, never change and have no state', () => {
    for (const [scaling, value] of [['none', 1], [1024, 1024]] as const) {
      const scale = new LossScale(scaling);
      for (let i = 0; i < 3000; i++) scale.accept();
      expect([scale.value, scale.shrink(), scale.value, scale.state]).toEqual([value, false, value, null]);
    }
  });

  test('goes on from its state', () => {
    const [a, b] = [new LossScale({ growth_steps: 5 }), new LossScale({ growth_steps: 5 })];
    for (let i = 0; i < 3; i++) a.accept();
    a.shrink();
    a.accept();
    b.restore(a.state);
    for (let i = 0; i < 4; i++) for (const scale of [a, b]) scale.accept();
    expect(b.value).toBe(a.value);
    expect(b.state).toEqual({ scale: 65536, good: 0 });
    b.restore(null);
    expect(b.state).toEqual({ scale: 65536, good: 0 });
  });

  test('settings that make no sense are refused where the file is read', () => {
    const parse = (loss_scale: unknown) => parseRun({ ...settings(), loss_scale }).config;
    for (const bad of [1000, 0, -2, 'off', { initial: 3 }, { growth: 2 }, { growth_steps: 0 }]) expect(() => parse(bad), JSON.stringify(bad)).toThrow(/loss_scale.*(power of two|growth)/);
    expect(() => parse({ initial: 4, least: 8 })).toThrow(/begins at 4, outside 8\.\.16777216/);
    expect(parse('dynamic').atomic).toBe(true);
    expect(parse(64).atomic).toBe(false);
    expect(parse('none').loss_scale).toBe('none');
  });
});

describe('a power of two changes no bit', () => {
  test.each<Partial<RunInput>>([
    { dtype: 'f32', clip_mode: 'none' },
    { dtype: 'bf16', clip_mode: 'parameter', max_grad_norm: 0.1 },
    { dtype: 'f16', clip_mode: 'none' },
    { dtype: 'f16', clip_mode: 'value', clip_value: 0.01 },
    { dtype: 'f16', clip_mode: 'parameter', max_grad_norm: 0.1 },
    { dtype: 'f16', clip_mode: 'global', max_grad_norm: 0.5 },
    { dtype: 'f16', clip_mode: 'global', max_grad_norm: 0.5, clip_by: 'memory' },
    { dtype: 'f16', optim: 'adalomo', clip_mode: 'none', learning_rate: 0.01 },
    { dtype: 'bf16', optim: 'adamw', clip_mode: 'global', max_grad_norm: 0.5, learning_rate: 0.01 },
  ])('%j', async (how) => {
    const plain = await run(await opened({ max_steps: 2, ...how }));
    expect(plain.error).toBeNull();
    if (how.clip_mode === 'global') expect(told(plain).every(({ gradNorm }) => gradNorm > 0)).toBe(true);
    for (const loss_scale of [2 ** -8, 'dynamic'] as const) {
      const scaled = await run(await opened({ max_steps: 2, ...how, loss_scale }));
      expect(scaled.digest).toBe(plain.digest);
      // The norm that is told, and the one that clips, are those of unscaled gradients.
      expect(told(scaled)).toEqual(told(plain));
    }
  });
});

/** The norm's sum of squares leaves f32 from a scale of about 2^64 on. */
const tooLarge = { initial: 2 ** 70, growth_steps: 1000 } as const;

test.each(['f32', 'f16'] as const)('%s: far too large, it shrinks until the step fits; from there the run is the unscaled one', async (dtype) => {
  const how = { dtype, max_steps: 16, clip_mode: 'global', max_grad_norm: 0.5 } as const;
  const scaled = await run(await opened({ ...how, loss_scale: tooLarge }));
  expect(scaled.error).toBeNull();
  const lost = rejected(scaled);
  expect(lost.length).toBeGreaterThan(3); // more than would end a run that its scale cannot save
  expect(lost.slice(0, 4).map(({ step }) => step)).toEqual([1, 2, 3, 4]);
  expect(lost.map(({ lossScale }) => lossScale)).toEqual(lost.map((_, i) => 2 ** (69 - i)));
  expect(steps(scaled).length).toBe(16 - lost.length);
  expect(steps(scaled).at(-1)!.lossScale).toBe(2 ** (70 - lost.length));

  const plain = await opened(how);
  for (const { step } of lost) plain.skipped.add(step);
  expect((await run(plain)).digest).toBe(scaled.digest);
});

test('it grows after the steps it was told, up to its bound, and a checkpoint holds it', async () => {
  const session = await opened({ max_steps: 7, clip_mode: 'none', loss_scale: { initial: 4, growth_steps: 2, largest: 16 } });
  const grown = await run(session);
  expect(session.choices.find(({ name }) => name === 'loss scale')).toEqual({ name: 'loss scale', value: 'dynamic, from 4', reason: 'halved when a step overflows, doubled after 2 that did not, within 1..16' });
  expect(steps(grown).map(({ lossScale }) => lossScale)).toEqual([4, 4, 8, 8, 16, 16, 16]);
  expect(grown.digest).toBe((await run(await opened({ max_steps: 7, clip_mode: 'none' }))).digest);
  const state = await readState((await listCheckpoints(session.root))[0]!.path);
  expect(state.lossScale).toEqual({ scale: 16, good: 1 });
});

test('stopped anywhere, a run goes on with its scale and ends in the same bits', async () => {
  const { output_dir: _, ...how } = settings({ dtype: 'f16', max_steps: 14, clip_mode: 'global', max_grad_norm: 0.5, loss_scale: { initial: 2 ** 68, growth_steps: 2, largest: 2 ** 68 } });
  const whole = await run(await opened(how));
  const scales = (r: Run) => r.events.flatMap((e) => (e.kind === 'step' || e.kind === 'rejected' ? [`${e.kind} ${e.step} ${e.lossScale}`] : []));
  // It shrinks, grows back after two steps, overflows and shrinks again, all in one run.
  const first = steps(whole)[0]!.step - 1;
  expect(first).toBeGreaterThan(2);
  expect(rejected(whole).length).toBeGreaterThan(first + 1);
  for (const stop of [first + 1, first + 3, 9]) {
    const { output_dir } = settings();
    const before = await run(await opened({ ...how, output_dir: output_dir! }), stop);
    const second = await opened({ ...how, output_dir: output_dir! });
    await second.restore();
    expect(second.done).toBe(stop);
    const after = await run(second);
    expect([...scales(before), ...scales(after)]).toEqual(scales(whole));
    expect(after.digest).toBe(whole.digest);
  }
});

describe('a weight that would pass 65504', () => {
  const wild = { dtype: 'f16', learning_rate: 1e9, max_steps: 20 } as const;

  test.each(['none', 'parameter', 'global'] as const)('closes the gate before a byte changes, clip_mode %s', async (clip_mode) => {
    const session = await opened({ ...wild, clip_mode, ...(clip_mode === 'none' ? {} : { max_grad_norm: 1 }) });
    const before = await digest(session);
    const end = await run(session);
    expect(rejected(end)).toHaveLength(2);
    expect(String(end.error)).toMatch(/step 3: .*range of f16 \(65504\); no weight has changed/);
    expect(end.digest).toBe(before);
  });

  test('shrinks a dynamic scale to its least, and then three more end the run', async () => {
    const session = await opened({ ...wild, clip_mode: 'none', loss_scale: { initial: 16, least: 2 } });
    const before = await digest(session);
    const end = await run(session);
    expect(rejected(end).map(({ lossScale }) => lossScale)).toEqual([8, 4, 2, null, null]);
    expect(String(end.error)).toMatch(/step 6: /);
    expect(end.digest).toBe(before);
    expect([...session.skipped]).toEqual([4, 5, 6]);
  });
});
