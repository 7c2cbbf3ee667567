// Whole runs: they learn, they resume to the same bits, they say no to what they must not do, and what they reject changes nothing.
import { createHash } from 'node:crypto';
import { appendFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nodeFiles, observeFiles } from '@lomo/models';
import { optimOps } from '@lomo/optim';
import { isLomoError, LomoError, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { afterEach, describe, expect, test } from 'vitest';
import { dataFile } from '../../../tools/tiny/folder.ts';
import type { FitEvent, RunInput, Session } from '../src/index.ts';
import { fit, listCheckpoints, readState } from '../src/index.ts';
import { openPoisoned } from './poisoned.ts';
import { open, settings } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function opened(...args: Parameters<typeof open>): Promise<Session> {
  const session = await open(...args);
  sessions.push(session);
  return session;
}

async function run(session: Session, signal?: AbortSignal): Promise<FitEvent[]> {
  const events: FitEvent[] = [];
  for await (const event of fit(session, signal === undefined ? {} : { signal })) events.push(event);
  return events;
}

async function digest(session: Session): Promise<string> {
  const hash = createHash('sha256');
  const { device, model, optimizer } = session.assembly;
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

const losses = (events: readonly FitEvent[]): number[] => events.flatMap((e) => (e.kind === 'step' ? [e.loss] : []));

test('a run learns, and its last state is a folder with a manifest', async () => {
  const session = await opened({ max_steps: 12, learning_rate: 0.3 });
  const events = await run(session);
  const curve = losses(events);
  expect(curve).toHaveLength(12);
  expect(curve.at(-1)!).toBeLessThan(curve[0]! - 0.3);
  const saved = events.at(-1);
  expect(saved).toMatchObject({ kind: 'saved', step: 12 });
  const folder = (await listCheckpoints(session.root))[0]!.path;
  expect(readdirSync(folder).toSorted()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json', 'trainer_state.json']);
  const state = await readState(folder);
  const sha256 = createHash('sha256').update(readFileSync(join(folder, 'model.safetensors'))).digest('hex');
  expect(state).toMatchObject({ step: 12, steps: 12, files: { 'model.safetensors': sha256 } });
});

describe.each(['lomo', 'adalomo', 'adamw'])('%s', (optim) => {
  test('stopped at any step and resumed, a run ends in the bits of an undisturbed one', async () => {
    const shared = settings({ optim, learning_rate: 0.01, lr_scheduler_type: 'cosine', warmup_steps: 2, weight_decay: 0.1 });
    const { output_dir: _, ...same } = shared;
    const whole = await opened(same);
    await run(whole);
    const expected = await digest(whole);
    for (const stop of [1, 4]) {
      const folder = settings().output_dir!;
      const controller = new AbortController();
      const first = await opened({ ...same, output_dir: folder });
      for await (const event of fit(first, { signal: controller.signal })) if (event.kind === 'step' && event.step === stop) controller.abort();
      expect(first.done).toBe(stop);
      const second = await opened({ ...same, output_dir: folder });
      await second.restore();
      expect(second.done).toBe(stop);
      await run(second);
      expect(await digest(second)).toBe(expected);
    }
  });
});

test('only the newest checkpoints are kept', async () => {
  const session = await opened({ save_steps: 1, save_total_limit: 2 });
  await run(session);
  expect((await listCheckpoints(session.root)).map(({ step }) => step)).toEqual([6, 5]);
});

test('a checkpoint remembers what equal bits need; another machine resumes it and is told what differs', async () => {
  const machine = { backend: 'cpu', isa: 'avx512', libraries: 'oneDNN 2.6.3', chunk: '512' };
  const first = await opened({ max_steps: 4 }, { machine });
  const { output_dir } = first.config;
  await run(first);
  const { path } = (await listCheckpoints(first.root))[0]!;
  expect((await readState(path)).machine).toEqual({ ...machine, head_form: first.assembly.program.headForm });
  const same = { model_name_or_path: first.config.model_name_or_path, datasets: first.config.datasets, max_steps: 4, ...(output_dir === undefined ? {} : { output_dir }) };
  const again = async (here: Readonly<Record<string, string>>): Promise<readonly string[]> => (await opened(same, { machine: here })).resume(path);
  expect(await again(machine)).toEqual([]);
  expect(await again({ ...machine, isa: 'avx2', libraries: 'oneDNN 3.4.1' })).toEqual(['isa avx512, here avx2', 'libraries oneDNN 2.6.3, here oneDNN 3.4.1']);
  expect(await again({ backend: 'reference', node: 'v20' })).toEqual(['backend cpu, here reference', 'isa avx512, here unknown', 'libraries oneDNN 2.6.3, here unknown', 'chunk 512, here unknown', 'node unknown, here v20']);
  expect(await again({})).toEqual([]); // nothing said of this machine
});

test('other settings or data do not resume, and are named', async () => {
  const first = await opened({ max_steps: 2 });
  await run(first);
  const { output_dir, model_name_or_path, datasets } = first.config;
  const same = { output_dir: output_dir!, model_name_or_path, datasets: datasets as never, max_steps: 2 };
  const complaint = async (changes: Parameters<typeof open>[0]): Promise<string> => {
    const error = await (await opened({ ...same, ...changes })).restore().then(() => null, (e: unknown) => e);
    expect(isLomoError(error, 'ResumeMismatch')).toBe(true);
    return (error as LomoError).message;
  };
  expect(await complaint({ learning_rate: 0.2, clip_mode: 'value', clip_value: 1 })).toMatch(/step-000002 was made with learning_rate 0\.1, now 0\.2; clip_mode none, now value; clip_value unset, now 1: going on would be another run/);
  writeFileSync(datasets[0]!.path, readFileSync(datasets[0]!.path, 'utf8').replace('a d', 'a e'));
  expect(await complaint({})).toMatch(/was made with other samples \(the data files/);
});

test('a changed byte in a checkpoint is found while it is loaded, and what was loaded is not used', async () => {
  const session = await opened({ max_steps: 2 });
  await run(session);
  const folder = (await listCheckpoints(session.root))[0]!.path;
  const path = join(folder, 'model.safetensors');
  const bytes = readFileSync(path);
  bytes[bytes.length - 5]! ^= 1;
  writeFileSync(path, bytes);
  const before = await digest(session);
  await expect(session.restore()).rejects.toThrow(/model\.safetensors: its SHA-256/);
  await expect(session.save()).rejects.toMatchObject({ code: 'TornWeights' });
  await expect(run(session)).rejects.toMatchObject({ code: 'TornWeights' });
  bytes[bytes.length - 5]! ^= 1;
  writeFileSync(path, bytes);
  await session.restore();
  expect(await digest(session)).toBe(before);
});

test('whatever file call fails while saving, the last checkpoint is whole and the error names path and errno', async () => {
  let fails = Infinity;
  let count = 0;
  const files = observeFiles(nodeFiles, ({ verb }) => {
    if (verb !== 'read' && ++count >= fails) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
  });
  const session = await opened({ max_steps: 2 }, { files });
  await run(session);
  const good = (await listCheckpoints(session.root))[0]!;
  session.done = 1;
  count = 0;
  await session.save();
  const calls = count;
  expect(calls).toBeGreaterThan(10);
  for (let k = 1; k <= calls; k += 3) {
    session.done = 2;
    [count, fails] = [0, k];
    const error = await session.save().then(() => null, (e: unknown) => e);
    fails = Infinity;
    if (error === null) continue;
    expect(isLomoError(error, 'FileError')).toBe(true);
    expect((error as LomoError).message).toMatch(/ENOSPC/);
    const left = await listCheckpoints(session.root);
    for (const { path } of left) await session.resume(path);
    expect(left.length).toBeGreaterThan(0);
  }
  expect(good.step).toBe(2);
});

/** A session whose second block is ill at the steps `sick`. */
async function poisonedSession(kind: 'gradient' | 'loss', sick: number[], changes: Parameters<typeof open>[0] = {}): Promise<Session> {
  const session = await openPoisoned({ kind, sick: (step) => sick.includes(step) }, changes);
  sessions.push(session);
  return session;
}

test('a non-finite loss changes no byte, names step and samples, and the run goes on', async () => {
  const session = await poisonedSession('loss', [3]);
  const digests = new Map<string, string>();
  const events: FitEvent[] = [];
  for await (const event of fit(session)) {
    events.push(event);
    if (event.kind === 'step' || event.kind === 'rejected') digests.set(`${event.kind} ${event.step}`, await digest(session));
  }
  const rejected = events.find((e) => e.kind === 'rejected');
  expect(rejected).toMatchObject({ step: 3, error: { code: 'NonFiniteLoss' } });
  expect((rejected as { error: LomoError }).error.message).toMatch(/^step 3: the loss is NaN .*no weight has changed.*train\.jsonl:\d+/);
  expect(digests.get('rejected 3')).toBe(digests.get('step 2'));
  expect(session.done).toBe(6);
  expect(session.skipped).toEqual(new Set([3]));
});

test('three rejected steps in a row end the run', async () => {
  const session = await poisonedSession('loss', [2, 3, 4]);
  await expect(run(session)).rejects.toThrow(/^step 4: the loss is NaN .*no weight has changed\. Samples: .*train\.jsonl.*\. It was the last of 3 rejected steps in a row, .* Lower learning_rate/);
});

test('a gradient that turns infinite midway tears the step: it is rolled back to the last checkpoint and skipped, and the rest is as if it had never been', async () => {
  const session = await poisonedSession('gradient', [4], { save_steps: 2 });
  const events = await run(session);
  const rolled = events.find((e) => e.kind === 'rolled back');
  expect(rolled).toMatchObject({ step: 4, to: 2, error: { code: 'TornStep' } });
  expect((rolled as { error: LomoError }).error.message).toMatch(/layers\.1\..*not finite; [1-9]\d* parameters had been updated/);
  expect(events.flatMap((e) => (e.kind === 'step' ? [e.step] : []))).toEqual([1, 2, 3, 3, 5, 6]);
  const clean = await poisonedSession('gradient', []);
  clean.skipped.add(4);
  await run(clean);
  expect(await digest(session)).toBe(await digest(clean));
});

test('judged before the first write, the same gradient changes no byte', async () => {
  const session = await poisonedSession('gradient', [4], { clip_mode: 'global', max_grad_norm: 1 });
  const events = await run(session);
  expect(events.find((e) => e.kind === 'rejected')).toMatchObject({ step: 4, error: { code: 'NonFiniteGradient' } });
  expect(session.done).toBe(6);
});

test('complaints about data use the names of a run', async () => {
  await expect(open({ max_seq_length: 4 })).rejects.toThrow(/over 4 tokens.*raise max_seq_length/);
});

test('what of the data is left out, and a length beyond the model, is said before step 1', async () => {
  const path = dataFile(6);
  appendFileSync(path, `{"prompt": "a b c d", "completion": " e f g h"}\nnot JSON\n`);
  const told = async (changes: Partial<RunInput>): Promise<string[]> => {
    const { choices } = await opened({ datasets: [{ path }], max_steps: 1, on_bad_line: 'skip', ...changes });
    return choices.filter(({ name }) => ['left out', 'over-long', 'positions'].includes(name)).map(({ name, value, reason }) => `${name} ${value}: ${reason}`);
  };
  expect(await told({ max_seq_length: 8, overlong: 'drop' })).toEqual(['left out 2 of 8: 1 over 8 tokens (overlong: drop), 1 bad line (on_bad_line: skip)']);
  expect(await told({ max_seq_length: 8, overlong: 'truncate' })).toEqual(['left out 1 of 8: 1 bad line (on_bad_line: skip)', 'over-long 1: over 8 tokens; as the run asks: truncate']);
  expect(await told({ max_seq_length: 128 })).toEqual(['left out 1 of 8: 1 bad line (on_bad_line: skip)', expect.stringMatching(/^positions 128: the model was made for 64 /)]);
});

test('a plan is of everything that a run does: its step, evaluations where there are any, and text', async () => {
  const { plan } = await opened({ max_steps: 1, eval_datasets: [{ path: dataFile(3) }] });
  expect([...plan.phases.keys()]).toEqual(['setup', 'step', 'evaluate', 'generate']);
  expect([...(await opened({ max_steps: 1 })).plan.phases.keys()]).toEqual(['setup', 'step', 'generate']);
});

test('a backend that has reserved other bytes than the plan says ends the run at its first step', async () => {
  class Greedy extends ReferenceBackend {
    override reserved(): number {
      return super.reserved() + 256;
    }
  }
  const session = await opened({}, { backend: new Greedy({ ops: [...tensorOps, ...optimOps], precision: 'f32' }) });
  await expect(run(session)).rejects.toThrow(`the backend has reserved ${session.plan.extent + 256} bytes, the plan says ${session.plan.extent}`);
});
