// stages: streamed and offload: file: the bits of a run whose weights stay, whatever else is asked; saved, resumed, short of memory, on a failing disk.
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generate, modelSources, nodeFiles, observeFiles } from '@lomo/models';
import type { FileCall } from '@lomo/models';
import { isLomoError } from '@lomo/tensor';
import { afterEach, describe, expect, test } from 'vitest';
import type { FitEvent, RunInput, Session } from '../src/index.ts';
import { fit, listCheckpoints, openModel } from '../src/index.ts';
import { modelFolder } from '../../../tools/tiny/folder.ts';
import { openPoisoned } from './poisoned.ts';
import { open } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function opened(changes: Partial<RunInput>, more: Parameters<typeof open>[1] = {}): Promise<Session> {
  const session = await open({ max_steps: 3, per_device_train_batch_size: 1, ...changes }, more);
  sessions.push(session);
  return session;
}

const sameModel = ({ config: { model_name_or_path, datasets } }: Session): Partial<RunInput> => ({ model_name_or_path, datasets: datasets as never });

async function events(session: Session): Promise<FitEvent[]> {
  const seen: FitEvent[] = [];
  for await (const event of fit(session)) seen.push(event);
  return seen;
}

/** SHA-256 of all weights, wherever they are, and of the optimizer's state. */
async function digest({ assembly: { device, model, optimizer } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const source of modelSources(model)) for await (const bytes of source.slices()) hash.update(bytes);
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

async function finished(session: Session): Promise<string> {
  for (const event of await events(session)) if (event.kind === 'rejected' || event.kind === 'rolled back') throw event.error;
  return digest(session);
}

const said = ({ choices }: Session, what: string): string => {
  const found = choices.find(({ name }) => name === what);
  return found === undefined ? '' : `${found.value}: ${found.reason}`;
};

const runs: readonly (readonly [string, Partial<RunInput>])[] = [
  ['lomo, a second backward', { optim: 'lomo', clip_mode: 'global', max_grad_norm: 0.2, clip_by: 'two-pass' }],
  ['adalomo, bf16, spilled into a file', { optim: 'adalomo', dtype: 'bf16', clip_mode: 'global', max_grad_norm: 0.2, clip_by: 'file' }],
  ['adamw, tapes kept', { optim: 'adamw', learning_rate: 0.01, gradient_checkpointing: false }],
];

test.each(runs)('%s: ends in the bits of a resident run', async (_, changes) => {
  const resident = await opened(changes);
  const offload = changes.gradient_checkpointing === false ? 'none' : 'file';
  expect(await finished(await opened({ ...changes, ...sameModel(resident), stages: 'streamed', offload }))).toBe(await finished(resident));
});

test('a run resumes to the same bits in the other place, and back', async () => {
  const [, changes] = runs[1]!;
  const resident = await opened(changes);
  const expected = await finished(resident);
  const folder = mkdtempSync(join(tmpdir(), 'lomo-streamed-'));
  for (const [before, stages] of (['streamed', 'resident', 'streamed'] as const).entries()) {
    const session = await opened({ ...changes, ...sameModel(resident), output_dir: folder, stages });
    await session.restore();
    expect(session.done).toBe(before);
    const controller = new AbortController();
    for await (const event of fit(session, { signal: controller.signal })) if (event.kind === 'step') controller.abort();
    if (session.done === 3) expect(await digest(session)).toBe(expected);
  }
});

test('evaluation and text are those of a resident run', async () => {
  const resident = await opened({});
  const held = { ...sameModel(resident), eval_datasets: resident.config.datasets as never };
  const [here, away] = [await opened(held), await opened({ ...held, stages: 'streamed', offload: 'file' })];
  expect(await away.evaluate()).toBe(await here.evaluate());
  const texts = async (session: Session): Promise<unknown[]> => {
    const found: unknown[] = [];
    for await (const completion of session.complete(2)) found.push(completion);
    return found;
  };
  expect(await texts(away)).toEqual(await texts(here));
});

test('a saved model is evaluated and written with while its weights come from a file: the same numbers and text', async () => {
  const session = await opened({ max_steps: 1 });
  await finished(session);
  const { path } = (await listCheckpoints(session.root))[0]!;
  const found: unknown[] = [];
  for (const streamDir of [undefined, mkdtempSync(join(tmpdir(), 'lomo-stream-'))]) {
    const { backend } = session.assembly.device;
    await using model = await openModel(path, { backend, text: { prompt: 4, fresh: 6 }, batch: { tokens: 64, maxSegments: 4, maxLength: 16 }, ...(streamDir === undefined ? {} : { streamDir }) });
    const tokens = Int32Array.from({ length: 64 }, (_, i) => 3 + ((i * 7) % 20));
    const { loss } = await model.program!.evaluate([{ tokens, targets: tokens, positions: tokens.map((_, i) => i % 16), starts: Int32Array.of(0, 16, 32, 48, 64) }]);
    const ids: number[] = [];
    for await (const id of generate(model.model, [1, 5, 9], { maxNewTokens: 6, stop: [] })) ids.push(id);
    found.push({ loss, ids });
    expect(model.model.parameters.some((p) => p.away)).toBe(streamDir !== undefined);
  }
  expect(found[1]).toEqual(found[0]);
});

test('a step torn by a gradient that is not finite goes back to the checkpoint, whose weights go into the file, and is skipped', async () => {
  const ill = async (stages: 'resident' | 'streamed'): Promise<Session> => {
    const session = await openPoisoned({ kind: 'gradient', sick: (step) => step === 3 }, { max_steps: 4, per_device_train_batch_size: 1, save_steps: 2, stages, ...(sessions[0] === undefined ? {} : sameModel(sessions[0])) });
    sessions.push(session);
    return session;
  };
  const [here, away] = [await ill('resident'), await ill('streamed')];
  const kinds = async (session: Session): Promise<string[]> => (await events(session)).flatMap((e) => (e.kind === 'saved' ? [] : [`${e.kind} ${e.step}`]));
  expect(await kinds(away)).toEqual(await kinds(here));
  expect([await digest(away), [...away.skipped]]).toEqual([await digest(here), [3]]);
});

describe('the choice', () => {
  test('is resident where that fits, streamed where nothing else does, with the bytes of a step', async () => {
    const resident = await opened({ gradient_checkpointing: true });
    expect(said(resident, 'weights')).toBe('');
    const streamed = await opened({ ...sameModel(resident), gradient_checkpointing: true, stages: 'streamed' });
    expect(said(streamed, 'weights')).toMatch(/^streamed: as the run asks: .* in a file, .* read and .* written a step/);
    const { read, written, bytes } = streamed.plan.streamed!;
    expect([written > 0.9 * bytes, written <= bytes, read > written, read < 2 * written]).toEqual([true, true, true, true]); // places are aligned
    const asked = await opened({ ...sameModel(resident), stages: 'resident' });
    expect(said(asked, 'weights')).toBe('resident: as the run asks');
    const deep = { ...sameModel(resident), model_name_or_path: modelFolder({ num_hidden_layers: 12, hidden_size: 32, intermediate_size: 64 }), gradient_checkpointing: true };
    const large = await opened({ ...deep, stages: 'streamed' });
    const short = await opened(deep, { memory: large.plan.extent });
    expect(said(short, 'weights')).toMatch(/^streamed: resident the run needs [\d.]+ [KM]iB, \d+ KiB are free: \d+ KiB in a file/);
    expect(said(await opened(deep), 'weights')).toBe('');
  });

  test('offloaded boundaries need recomputed stages', async () => {
    await expect(opened({ offload: 'file', gradient_checkpointing: false })).rejects.toThrow(/offload: file moves what arrives at stages that are recomputed/);
  });
});

describe('the file', () => {
  test('has no name while the run uses it, and a step moves the planned bytes', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lomo-stream-'));
    const session = await opened({ stages: 'streamed', stream_dir: folder, max_steps: 2 });
    expect(readdirSync(folder)).toEqual([]);
    const { residency } = session.assembly.program;
    const before = residency!.traffic;
    await finished(session);
    const { read, written } = residency!.traffic;
    const { streamed } = session.plan;
    expect([read - before.read, written - before.written]).toEqual([2 * streamed!.read, 2 * streamed!.written]);
    expect(readdirSync(folder)).toEqual([]);
  });

  test.each(['ENOSPC', 'EIO'])('a write that ends in %s: back to the checkpoint and again; twice ends the run, and the checkpoint is whole', async (errno) => {
    let fails: (call: FileCall) => boolean = () => false;
    const files = observeFiles(nodeFiles, (call) => {
      if (fails(call)) throw Object.assign(new Error('i/o error'), { code: errno });
    });
    const streaming = { stages: 'streamed', save_steps: 1, max_steps: 4 } as const;
    const session = await opened(streaming, { files });
    let failures = 0;
    let writes = 0;
    const kinds: string[] = [];
    let thrown: unknown = null;
    try {
      for await (const event of fit(session)) {
        kinds.push(`${event.kind} ${event.step}`);
        if (event.kind === 'step' && event.step === 1) fails = ({ verb, path }) => failures === 0 && path.includes('.stream-') && verb === 'write' && ++writes === 5 && ++failures > 0;
        if (event.kind === 'step' && event.step === 3) fails = ({ verb, path }) => path.includes('.stream-') && verb === 'write' && ++writes % 9 === 0;
      }
    } catch (error) {
      thrown = error;
    }
    expect(kinds.slice(0, 4).filter((kind) => !kind.startsWith('saved'))).toEqual(['step 1', 'rolled back 2', 'step 2']);
    expect(isLomoError(thrown, 'FileError')).toBe(true);
    expect(String(thrown)).toMatch(new RegExp(`write .*\\.stream-.*${errno}.*stream_dir`));
    fails = () => false;
    const { path } = (await listCheckpoints(session.root))[0]!;
    await session.resume(path);
    const whole = await opened({ ...streaming, ...sameModel(session) });
    expect(await finished(session)).toBe(await finished(whole));
  });

  test('a read that fails before anything was updated ends the run with path and errno; nothing has changed', async () => {
    let armed = false;
    const files = observeFiles(nodeFiles, ({ verb, path }) => {
      if (armed && verb === 'read' && path.includes('.stream-')) throw Object.assign(new Error('i/o error'), { code: 'EIO' });
    });
    const session = await opened({ stages: 'streamed' }, { files });
    const before = await digest(session);
    const { live } = session.assembly.device.arena;
    armed = true;
    await expect(events(session)).rejects.toThrow(/^read .*\.stream-.*: EIO.*stream_dir.*stages: resident/);
    armed = false;
    expect(await digest(session)).toBe(before);
    expect(session.assembly.device.arena.live).toBe(live);
  });

  test('too small a disk is refused before anything is trained', async () => {
    await expect(opened({ stages: 'streamed' }, { files: { ...nodeFiles, freeBytes: () => Promise.resolve(10) } })).rejects.toThrow(/the weights of all stages are kept there, .*; 10 B are free.*stream_dir/);
  });
});
