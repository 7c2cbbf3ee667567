// Telemetry of a run: at logged steps only, the same weights with and without, and no reason not to resume.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import type { FitEvent, RunInput, Session } from '../src/index.ts';
import { fit } from '../src/index.ts';
import { open, settings } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function run(changes: Partial<RunInput>, signal?: AbortController): Promise<{ readonly weights: string; readonly steps: readonly Extract<FitEvent, { kind: 'step' }>[] }> {
  const session = await open(changes);
  sessions.push(session);
  await session.restore();
  const steps: Extract<FitEvent, { kind: 'step' }>[] = [];
  for await (const event of fit(session, signal === undefined ? {} : { signal: signal.signal })) {
    if (event.kind !== 'step') continue;
    steps.push(event);
    if (event.step === 3) signal?.abort();
  }
  const hash = createHash('sha256');
  for (const p of session.assembly.model.parameters) hash.update(new Uint8Array((await session.assembly.device.read(p)).buffer));
  return { weights: hash.digest('hex'), steps };
}

describe.each(['f32', 'bf16'] as const)('%s', (dtype) => {
  test('every logged step says what it did, others say nothing, and the weights are the same', async () => {
    const all = await run({ dtype });
    const some = await run({ dtype, logging_steps: 4 });
    const none = await run({ dtype, telemetry: false });
    expect(new Set([all.weights, some.weights, none.weights]).size).toBe(1);
    expect(some.steps.map(({ telemetry }) => telemetry !== null)).toEqual([false, false, false, true, false, false]);
    expect(none.steps.every(({ telemetry }) => telemetry === null)).toBe(true);
    expect(some.steps[3]!.telemetry).toEqual(all.steps[3]!.telemetry);
    for (const { telemetry } of all.steps) {
      expect(telemetry!.all.gradNorm).toBeGreaterThan(0);
      expect(telemetry!.all.changed).toBeGreaterThan(0);
      expect(telemetry!.groups.map(({ group }) => group).toSorted()).toEqual(expect.arrayContaining(['attention', 'embedding', 'mlp', 'norms']));
      if (dtype === 'f32') expect(telemetry!.all).toMatchObject({ lost: 0, noise: 0 });
      else expect(telemetry!.all.noise).toBeGreaterThan(0);
    }
  });

  test('with a global clip its norm is that of the norm pass', async () => {
    for (const { telemetry, gradNorm } of (await run({ dtype, clip_mode: 'global', max_grad_norm: 0.1 })).steps) {
      expect(gradNorm).toBeGreaterThan(0);
      expect(Math.abs(telemetry!.all.gradNorm / gradNorm - 1)).toBeLessThan(1e-6);
    }
  });
});

test('a run goes on with other logging than it began with, to the same weights', async () => {
  const { output_dir: folder, ...same } = settings({ dtype: 'bf16' });
  const whole = await run({ ...same, output_dir: settings().output_dir });
  const begun = await run({ ...same, output_dir: folder, logging_steps: 2 }, new AbortController());
  expect(begun.steps.at(-1)!.step).toBe(3);
  // The first step of a process is held to its plan: here it is one that is not measured.
  const rest = await run({ ...same, output_dir: folder, logging_steps: 3 });
  expect(rest.steps.map(({ step, telemetry }) => [step, telemetry !== null])).toEqual([[4, false], [5, false], [6, true]]);
  expect(rest.weights).toBe(whole.weights);
});
