// Steps that end in NaN or infinities, in a whole run: nothing of them is left, in every way of judging; torn ones are rolled back; three in a row end the run.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import type { FitEvent, RunInput, Session } from '../src/index.ts';
import { fit, listCheckpoints } from '../src/index.ts';
import { openPoisoned } from './poisoned.ts';
import type { Illness } from './poisoned.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function opened(illness: Illness, changes: Partial<RunInput>): Promise<Session> {
  const session = await openPoisoned(illness, changes);
  sessions.push(session);
  return session;
}

async function run(session: Session): Promise<FitEvent[]> {
  const events: FitEvent[] = [];
  for await (const event of fit(session)) events.push(event);
  return events;
}

async function digest({ assembly: { device, model, optimizer } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

const ways: readonly (readonly [string, Partial<RunInput>])[] = [
  ['single pass', { clip_mode: 'none' }],
  ['atomic, a second backward', { clip_mode: 'none', atomic: true, clip_by: 'two-pass' }],
  ['atomic, put aside', { clip_mode: 'none', atomic: true, clip_by: 'memory' }],
  ['global norm, a second backward', { clip_mode: 'global', max_grad_norm: 0.2, clip_by: 'two-pass' }],
  ['global norm, memory', { clip_mode: 'global', max_grad_norm: 0.2, clip_by: 'memory' }],
  ['global norm, file', { clip_mode: 'global', max_grad_norm: 0.2, clip_by: 'file' }],
];
const illnesses = [['loss', NaN], ['loss', -Infinity], ['gradient', NaN], ['gradient', Infinity], ['gradient', -Infinity]] as const;

describe.each(ways)('%s', (name, changes) => {
  test.each(illnesses)('%s, %s', async (kind, value) => {
    const settings = { optim: 'adalomo', learning_rate: 0.01, save_steps: 2, max_steps: 6, ...changes };
    const session = await opened({ kind, value, sick: (step) => step === 4 }, settings);
    const events = await run(session);
    const torn = name === 'single pass' && kind === 'gradient';
    const odd = events.filter((e) => e.kind === 'rejected' || e.kind === 'rolled back');
    expect(odd.map((e) => [e.kind, e.step, 'error' in e ? e.error.code : ''])).toEqual([torn ? ['rolled back', 4, 'TornStep'] : ['rejected', 4, kind === 'loss' ? 'NonFiniteLoss' : 'NonFiniteGradient']]);
    expect(events.flatMap((e) => (e.kind === 'step' ? [e.step] : []))).toEqual(torn ? [1, 2, 3, 3, 5, 6] : [1, 2, 3, 5, 6]);
    const { model_name_or_path, datasets } = session.config;
    const clean = await opened({ kind, value, sick: () => false }, { ...settings, model_name_or_path, datasets: datasets as never });
    clean.skipped.add(4);
    await run(clean);
    expect(await digest(session)).toBe(await digest(clean));
  });

  test('three in a row end the run, and its weights are those of the last good step', async () => {
    const session = await opened({ kind: 'gradient', sick: (step) => step >= 3 }, { max_steps: 6, save_steps: 1, ...changes });
    let good = '';
    await expect(async () => {
      for await (const event of fit(session)) if (event.kind === 'step') good = await digest(session);
    }).rejects.toThrow(/^step 5: the gradient of .* is not finite/);
    expect(await digest(session)).toBe(good);
    expect([...session.skipped]).toEqual([3, 4, 5]);
  });
});

describe.each([['single pass', { clip_mode: 'none' }], ['judged first', { clip_mode: 'global', max_grad_norm: 0.2 }]] as const)('ill at steps 3 and 5, %s', (_, clip) => {
  const last = async (root: string): Promise<string> => readFileSync(join((await listCheckpoints(root))[0]!.path, 'trainer_state.json'), 'utf8');
  const stopped: readonly (readonly [Illness['kind'], NonNullable<Illness['stage']>])[] = [['loss', 'block 0'], ['gradient', 'block 0'], ['gradient', 'block 1']];

  test.each(stopped)('in the %s, from %s on: saved or killed after a step before, between or after them and gone on with, the run skips the same steps and ends in the same bits', async (kind, stage) => {
    const illness: Illness = { kind, stage, sick: (step) => step === 3 || step === 5 };
    const settings = { optim: 'adamw', learning_rate: 0.01, save_steps: 2, max_steps: 7, ...clip };
    const whole = await opened(illness, settings);
    const kinds = (await run(whole)).map((event) => event.kind);
    expect(kinds.filter((k) => k === (clip.clip_mode === 'none' && kind === 'gradient' ? 'rolled back' : 'rejected'))).toHaveLength(2);
    expect([...whole.skipped]).toEqual([3, 5]);
    const { model_name_or_path, datasets } = whole.config;
    for (const stop of [1, 4, 5]) {
      const same = { ...settings, model_name_or_path, datasets: datasets as never, output_dir: mkdtempSync(join(tmpdir(), 'lomo-ill-')) };
      const first = await opened(illness, same);
      const controller = new AbortController();
      for await (const { step } of fit(first, { signal: controller.signal })) {
        if (step < stop) continue;
        // Odd ones are asked to stop, and save; even ones are gone at once.
        if (stop % 2 === 0) break;
        controller.abort();
      }
      const second = await opened(illness, same);
      await second.restore();
      expect(second.done, `stopped after ${stop}`).toBeLessThan(7);
      await run(second);
      expect([...second.skipped], `stopped after ${stop}`).toEqual([3, 5]);
      expect(await last(second.root), `stopped after ${stop}`).toBe(await last(whole.root));
    }
  });
});
