// Saves while training goes on: the state of exactly that step, one at a time, told when durable; when the next is due; what a full disk does.
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeFiles, observeFiles } from '@lomo/models';
import type { FileCall, Files } from '@lomo/models';
import { isLomoError } from '@lomo/tensor';
import { afterEach, describe, expect, test } from 'vitest';
import type { FitEvent, SaveEvent, Session } from '../src/index.ts';
import { fit, listCheckpoints, readState, Saves, surveyCheckpoints } from '../src/index.ts';
import { openPoisoned } from './poisoned.ts';
import { open, settings } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function opened(changes: Parameters<typeof open>[0] = {}, more: Parameters<typeof open>[1] = {}): Promise<Session> {
  const session = await open(changes, more);
  sessions.push(session);
  return session;
}

async function digest({ assembly: { device, model, optimizer } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

/** Files whose writes wait until the gate is opened, and fail the calls that `fails` picks. */
function gated(): { files: Files; open(): void; close(): void; fails: ((call: FileCall) => string | null) | null } {
  let pass = (): void => {};
  let gate = Promise.resolve();
  const control = {
    fails: null as ((call: FileCall) => string | null) | null,
    close: () => void (gate = new Promise((done) => (pass = done))),
    open: () => pass(),
    files: nodeFiles,
  };
  const slow: Files = {
    ...nodeFiles,
    open: async (path, mode) => {
      const file = await nodeFiles.open(path, mode);
      return { ...file, write: async (from, position) => gate.then(() => file.write(from, position)) };
    },
  };
  control.files = observeFiles(slow, (call) => {
    const errno = control.fails?.(call) ?? null;
    if (errno !== null) throw Object.assign(new Error('injected'), { code: errno });
  });
  return control;
}

async function all<T>(events: AsyncIterable<T>): Promise<T[]> {
  const seen: T[] = [];
  for await (const event of events) seen.push(event);
  return seen;
}

const brief = (events: readonly FitEvent[]): string[] => events.map(({ kind, step }) => `${kind} ${step}`);

describe.each(['lomo', 'adamw'])('%s, saved from a copy', (optim) => {
  test('training goes on meanwhile, to the same bits; the checkpoint is the state after exactly its step', async () => {
    const { output_dir: _, ...same } = settings({ optim, learning_rate: 0.01 });
    const plain = await opened(same);
    const after = new Map<number, string>();
    for await (const event of fit(plain)) if (event.kind === 'step') after.set(event.step, await digest(plain));
    const gate = gated();
    const session = await opened({ ...same, save_steps: 2, save_from: 'copy', save_total_limit: 9 }, { files: gate.files });
    const events: FitEvent[] = [];
    gate.close();
    for await (const event of fit(session)) {
      events.push(event);
      if (event.kind === 'step') expect(await digest(session)).toBe(after.get(event.step));
      if (event.kind === 'step' && event.step === 3) {
        expect(await listCheckpoints(session.root)).toEqual([]); // nothing is durable, and nothing was said
        gate.open();
      }
    }
    expect(brief(events).slice(0, 3)).toEqual(['step 1', 'step 2', 'step 3']);
    const saved = events.filter((event): event is Extract<SaveEvent, { kind: 'saved' }> => event.kind === 'saved');
    expect(saved.map(({ step, copied }) => [step, copied])).toEqual([[2, true], [4, true], [6, false]]);
    for (const { step, path, bytes, milliseconds, waited, share } of saved) {
      const other = await opened({ ...same, output_dir: session.root });
      await other.resume(path);
      expect(await digest(other)).toBe(after.get(step));
      expect(bytes).toBe(readdirSync(path).reduce((n, name) => n + readFileSync(join(path, name)).byteLength, 0));
      expect(waited).toBeLessThanOrEqual(milliseconds);
      expect(share).toBeGreaterThan(0);
      expect(share).toBeLessThan(1);
    }
  });
});

test('one save at a time: a second one waits for the first', async () => {
  const gate = gated();
  let writing = 0;
  let most = 0;
  const files: Files = {
    ...gate.files,
    makeFolder: async (folder) => {
      if (folder.endsWith('.partial')) most = Math.max(most, ++writing);
      await gate.files.makeFolder(folder);
    },
    rename: async (from, to) => {
      await gate.files.rename(from, to);
      if (from.endsWith('.partial')) writing--;
    },
  };
  const session = await opened({ save_steps: 1, save_from: 'copy' }, { files });
  const events = await all(fit(session));
  expect(most).toBe(1);
  expect(brief(events).filter((text) => text.startsWith('saved'))).toEqual([1, 2, 3, 4, 5, 6].map((n) => `saved ${n}`));
});

describe('a save that fails while training goes on', () => {
  test('of a full disk: told, tried again when the next is due; the last checkpoint stands; three in a row end the run', async () => {
    const gate = gated();
    const session = await opened({ save_steps: 1, save_from: 'copy' }, { files: gate.files });
    const events: FitEvent[] = [];
    for await (const event of fit(session)) {
      events.push(event);
      const full = session.done === 2 || session.done === 3;
      gate.fails = ({ verb, path }) => (full && verb === 'write' && path.includes('.partial') ? 'ENOSPC' : null);
    }
    const failed = events.filter((event) => event.kind === 'save failed');
    expect(failed.length).toBeGreaterThan(0);
    for (const { error } of failed) expect(error).toMatchObject({ code: 'FileError', details: { errno: 'ENOSPC' } });
    expect(events.at(-1)).toMatchObject({ kind: 'saved', step: 6 });
    const other = await opened({ save_steps: 1, save_from: 'copy' }, { files: gate.files });
    gate.fails = ({ verb, path }) => (verb === 'write' && path.includes('.partial') ? 'ENOSPC' : null);
    const seen: FitEvent[] = [];
    const error = await (async () => {
      for await (const event of fit(other)) seen.push(event);
    })().then(() => null, (e: unknown) => e);
    expect(error).toMatchObject({ code: 'FileError', details: { errno: 'ENOSPC' } });
    expect(seen.filter(({ kind }) => kind === 'save failed')).toHaveLength(2);
    expect(readdirSync(other.root)).toEqual([]);
  });

  test('of anything else: ends the run with it, typed, and leaves nothing half written', async () => {
    const gate = gated();
    const session = await opened({ save_steps: 2, save_from: 'copy' }, { files: gate.files });
    gate.fails = ({ verb, path }) => (verb === 'fsync' && path.includes('step-000004.partial') ? 'EIO' : null);
    const error = await (async () => {
      for await (const _ of fit(session));
    })().then(() => null, (e: unknown) => e);
    expect(error).toMatchObject({ code: 'FileError', details: { errno: 'EIO', verb: 'fsync' } });
    const { complete, damaged } = await surveyCheckpoints(session.root);
    expect([complete.map(({ step }) => step), damaged]).toEqual([[2], []]);
    expect(readdirSync(session.root)).toEqual(['step-000002']);
  });

  test('is heard of even by one that stops listening', async () => {
    const gate = gated();
    const session = await opened({ save_steps: 1, save_from: 'copy' }, { files: gate.files });
    gate.fails = ({ verb, path }) => (verb === 'fsync' && path.includes('.partial') ? 'EIO' : null);
    await expect((async () => {
      for await (const event of fit(session)) if (event.kind === 'step' && event.step === 2) break;
    })()).rejects.toMatchObject({ details: { errno: 'EIO' } });
  });
});

test('a torn step waits for the checkpoint that is being written, and goes back to it', async () => {
  const { output_dir: _, ...same } = settings({ save_steps: 2, save_from: 'copy' });
  const session = await openPoisoned({ kind: 'gradient', sick: (step) => step === 3 }, same);
  sessions.push(session);
  const events = await all(fit(session));
  expect(events.find(({ kind }) => kind === 'rolled back')).toMatchObject({ step: 3, to: 2 });
});

test('at the end and on an interrupt nothing is under way, and the last state is saved', async () => {
  const gate = gated();
  const session = await opened({ save_steps: 2, save_from: 'copy' }, { files: gate.files });
  const controller = new AbortController();
  gate.close();
  const seen: string[] = [];
  for await (const event of fit(session, { signal: controller.signal })) {
    seen.push(`${event.kind} ${event.step}`);
    if (event.kind === 'step' && event.step === 3) {
      controller.abort();
      setTimeout(() => gate.open(), 20);
    }
  }
  expect(seen).toEqual(['step 1', 'step 2', 'step 3', 'saved 2', 'saved 3']);
  expect(readdirSync(session.root)).toEqual(['step-000002', 'step-000003']);
});

describe('from a copy or not', () => {
  const said = ({ choices }: Session): string => {
    const { value, reason } = choices.find(({ name }) => name === 'saving from')!;
    return `${value}: ${reason}`;
  };

  test('is decided by the memory that the plan leaves, with the numbers', async () => {
    expect(said(await opened())).toMatch(/^copy: training goes on while it is written \(a copy takes [\d.]+ KiB, the plan leaves [\d.]+ [MG]iB\)$/);
    const { plan } = await opened({ gradient_checkpointing: true });
    expect(said(await opened({ gradient_checkpointing: true }, { memory: plan.extent + 1000 }))).toMatch(/^weights: training waits while they are written \(a copy takes [\d.]+ KiB, the plan leaves 0\.977 KiB\)$/);
    expect(said(await opened({ gradient_checkpointing: true, save_from: 'copy' }, { memory: plan.extent + 1000 }))).toMatch(/^copy: as the run asks; /);
  });

  test('memory that somebody else has taken meanwhile is not taken', async () => {
    const session = await opened({ save_steps: 2 }, { freeMemory: () => 1000 });
    const events = await all(fit(session));
    expect(events.flatMap((event) => (event.kind === 'saved' ? [event.copied] : []))).toEqual([false, false, false]);
  });
});

describe('when a save is due', () => {
  test('after max(save_minutes, 20 times what the last one took)', async () => {
    const took = (milliseconds: number) => async () => {
      await new Promise((done) => setTimeout(done, milliseconds));
      return { path: '', bytes: 0, notRemoved: null };
    };
    const session = { config: { save_minutes: 10 }, done: 0, save: took(0), saveCopy: () => Promise.resolve(null) };
    const saves = new Saves(session);
    expect(saves.pause).toBe(600_000);
    for (const [minutes, milliseconds] of [[0.001, 30], [10, 5]] as const) {
      session.config.save_minutes = minutes;
      session.save = took(milliseconds);
      session.done++;
      const [event] = await all(saves.begin());
      expect(event).toMatchObject({ kind: 'saved', step: session.done });
      const cost = (event as Extract<SaveEvent, { kind: 'saved' }>).milliseconds;
      expect(saves.pause).toBe(Math.max(minutes * 60_000, 20 * cost));
      expect(saves.due(session.done + 1)).toBe(false);
    }
    session.config.save_minutes = 0.0001;
    session.save = took(0);
    session.done++;
    await all(saves.begin());
    await new Promise((done) => setTimeout(done, saves.pause + 5));
    expect(saves.due(session.done + 1)).toBe(true);
  });
});

describe('the probe before step 1', () => {
  test('sums a checkpoint and spilled gradients where they share a file system', async () => {
    let free = 0;
    const files: Files = { ...nodeFiles, freeBytes: () => Promise.resolve(free) };
    free = 1e9;
    const session = await opened({ clip_mode: 'global', max_grad_norm: 1, clip_by: 'file', save_total_limit: 1 }, { files });
    expect(await session.probe()).toEqual([]);
    const bytes = session.assembly.model.parameters.reduce((n, p) => n + p.bytes, 0);
    free = bytes + 100; // enough for either
    const error = await session.probe().then(() => null, (e: unknown) => e);
    expect(error).toMatchObject({ code: 'DiskFull', details: { path: session.root, free } });
    expect(isLomoError(error) && error.message).toMatch(/a checkpoint needs [\d.]+ KiB and the gradients that a step puts aside [\d.]+ KiB, /);
    free = 3 * bytes - 1;
    expect(await session.probe()).toEqual([expect.stringMatching(/2 checkpoints of [\d.]+ KiB lie there while one is written; [\d.]+ K?i?B are missing/)]);
  });

  test('clears what crashes left, and names what is no checkpoint', async () => {
    const session = await opened({ save_steps: 2, save_from: 'weights' });
    for await (const _ of fit(session));
    const { root } = session;
    await nodeFiles.rename(join(root, 'step-000006'), join(root, 'step-000006.replaced')); // a crash between two renames
    await nodeFiles.makeFolder(join(root, 'step-000008.partial'));
    writeFileSync(join(root, 'step-000008.partial', 'model.safetensors'), 'half');
    await nodeFiles.makeFolder(join(root, 'step-000009'));
    writeFileSync(join(root, 'notes.partial'), 'mine');
    expect((await surveyCheckpoints(root)).complete.map(({ path }) => path)).toEqual([join(root, 'step-000006.replaced'), join(root, 'step-000004')]);
    const { path, damaged } = await session.newest();
    expect(path).toBe(join(root, 'step-000006'));
    expect(damaged).toEqual([{ path: join(root, 'step-000009'), reason: 'trainer_state.json is missing' }]);
    expect(readdirSync(root)).toEqual(['notes.partial', 'step-000004', 'step-000006', 'step-000009']);
    rmSync(join(root, 'step-000006', 'tokenizer.json'));
    expect((await session.newest()).path).toBe(join(root, 'step-000004'));
    expect((await readState(join(root, 'step-000004'))).step).toBe(4);
  });

  test('a run that cannot be opened leaves no empty output folder', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lomo-empty-'));
    const { output_dir: _, ...rest } = settings({ init: 'pretrained', clip_mode: 'global', clip_by: 'file' }); // no weights to load
    await expect(open({ ...rest, output_dir: join(folder, 'runs/one') })).rejects.toMatchObject({ code: 'NoWeights' });
    expect(readdirSync(folder)).toEqual([]);
  });
});

test('nothing here or in @lomo/models opens a file but through one seam', () => {
  for (const folder of ['../src', '../../models/src']) {
    const base = new URL(`${folder}/`, import.meta.url).pathname;
    const users = readdirSync(base, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts') && /from '(node:)?fs|import\('(node:)?fs|require\(|process\.binding/.test(readFileSync(join(base, name), 'utf8')));
    // What the kernel says of processes is no file of a run.
    expect(users).toEqual(folder === '../src' ? ['process_identity.ts'] : ['files.ts']);
  }
});
