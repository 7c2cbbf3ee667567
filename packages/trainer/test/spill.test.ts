// clip_by: equal bits whatever is chosen, the choice with its numbers, the file without a name, and what a failing disk does to a run.
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeFiles, observeFiles } from '@lomo/models';
import type { FileCall, Files } from '@lomo/models';
import { isLomoError } from '@lomo/tensor';
import type { LomoError } from '@lomo/tensor';
import { afterEach, describe, expect, test } from 'vitest';
import type { RunInput, Session } from '../src/index.ts';
import { fit, openSpillFile } from '../src/index.ts';
import { open } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

const clipped: Partial<RunInput> = { clip_mode: 'global', max_grad_norm: 0.2, max_steps: 3 };

async function opened(changes: Partial<RunInput>, more: Parameters<typeof open>[1] = {}): Promise<Session> {
  const session = await open({ ...clipped, ...changes }, more);
  sessions.push(session);
  return session;
}

async function run(session: Session): Promise<string> {
  for await (const event of fit(session)) if (event.kind === 'rejected' || event.kind === 'rolled back') throw event.error;
  return digest(session);
}

async function digest({ assembly: { device, model, optimizer } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

const clipChoice = ({ choices }: Session): string => {
  const found = choices.find(({ name }) => name === 'clip');
  return found === undefined ? '' : `${found.value}: ${found.reason}`;
};

async function refusal(body: () => Promise<unknown>): Promise<LomoError> {
  const error = await body().then(() => null, (e: unknown) => e);
  if (isLomoError(error)) return error;
  throw error ?? new Error('nothing was refused');
}

describe.each(['lomo', 'adalomo'])('%s', (optim) => {
  test('a run ends in the same bits however its norm becomes known, and resumes across the ways', async () => {
    const digests = new Set<string>();
    const folder = mkdtempSync(join(tmpdir(), 'lomo-spill-run-'));
    for (const [before, clip_by] of (['two-pass', 'memory', 'file'] as const).entries()) {
      digests.add(await run(await opened({ optim, clip_by })));
      // Each way goes on from the checkpoint of the one before.
      const session = await opened({ optim, clip_by, output_dir: folder, model_name_or_path: sessions[0]!.config.model_name_or_path, datasets: sessions[0]!.config.datasets as never });
      await session.restore();
      const controller = new AbortController();
      for await (const event of fit(session, { signal: controller.signal })) if (event.kind === 'step') controller.abort();
      expect(session.done).toBe(before + 1);
      if (session.done === 3) digests.add(await digest(session));
    }
    expect(digests.size).toBe(1);
  });
});

describe('the choice', () => {
  test('is made by the cheaper estimate, and says bytes, times and what was assumed', async () => {
    const said = clipChoice(await opened({}));
    expect(said).toMatch(/^memory: the cheapest \(/);
    expect(said).toMatch(/memory \d[\d.]* KiB put aside, [\d.e-]+ ms/);
    expect(said).toMatch(/file \d[\d.]* KiB put aside, [\d.e-]+ ms/);
    expect(said).toMatch(/two-pass 0\.0\d+ GFLOP more, [\d.e-]+ ms/);
    expect(said).toMatch(/a step, assuming 200 GFLOP\/s, memory 8 GB\/s, disk 0\.5 GB\/s\)$/);
    // A disk so slow that a second backward is cheaper, in a memory that gradients put aside do not fit into.
    const least = await opened({ clip_by: 'two-pass', gradient_checkpointing: true });
    const slow = { rates: { flops: 1e12, memory: 1e10, disk: 1e3 }, memory: least.plan.extent };
    expect(clipChoice(await opened({}, slow))).toMatch(/^two-pass: memory would be cheaper, and does not fit \(/);
  });

  test('is what the run asks for', async () => {
    for (const clip_by of ['two-pass', 'memory', 'file'] as const) expect(clipChoice(await opened({ clip_by }))).toMatch(new RegExp(`^${clip_by}: as the run asks`));
  });

  test('is no choice where nothing is judged first; atomic steps are', async () => {
    expect(clipChoice(await opened({ clip_mode: 'none' }))).toBe('');
    const session = await opened({ clip_mode: 'none', atomic: true });
    expect(clipChoice(session)).toMatch(/^memory: /);
    expect(session.optimizer.passes.map(({ name }) => name)).toEqual(['spill']);
  });

  test('memory that is short goes to the weights: gradients are not put aside in it', async () => {
    // Few tokens, so that gradients outweigh what a second backward keeps.
    const changes = { per_device_train_batch_size: 1, gradient_accumulation_steps: 1, gradient_checkpointing: true };
    const [all, least] = [await opened({ ...changes, clip_by: 'memory' }), await opened({ ...changes, clip_by: 'two-pass' })];
    expect(all.plan.extent).toBeGreaterThan(least.plan.extent);
    expect(clipChoice(await opened(changes, { memory: all.plan.extent, rates: { flops: 1e6, memory: 1e9, disk: 1e3 } }))).toMatch(/^two-pass: memory would be cheaper, and does not fit/);
  });
});

describe('the file', () => {
  test('has no name while the run uses it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lomo-spill-'));
    const calls: string[] = [];
    const files = observeFiles(nodeFiles, ({ verb, path }) => {
      if (path.includes('.spill-')) calls.push(verb);
    });
    const session = await opened({ clip_by: 'file', spill_dir: folder }, { files });
    expect(readdirSync(folder)).toEqual([]);
    await run(session);
    expect(readdirSync(folder)).toEqual([]);
    expect(calls.slice(0, 2)).toEqual(['open', 'rm']);
    expect(calls.filter((verb) => verb === 'write').length).toBe(3 * session.assembly.model.parameters.length);
  });

  test('in a folder that cannot be written, or too full: refused before anything is trained, with path, errno and the next step', async () => {
    const file = join(mkdtempSync(join(tmpdir(), 'lomo-spill-')), 'file');
    await nodeFiles.open(file, 'create').then((opened_) => opened_.close());
    const error = await refusal(() => opened({ clip_by: 'file', spill_dir: join(file, 'inside') }));
    expect(error.code).toBe('FileError');
    expect(error.message).toMatch(/file\/inside: ENOTDIR.*spill_dir.*clip_by: two-pass/);
    const full: Files = { ...nodeFiles, freeBytes: () => Promise.resolve(10) };
    const folder = mkdtempSync(join(tmpdir(), 'lomo-spill-'));
    expect(await refusal(() => opened({ clip_by: 'file', spill_dir: folder }, { files: full }))).toMatchObject({ code: 'DiskFull', details: { path: folder, free: 10 } });
  });

  test.each(['ENOSPC', 'EIO'])('a write that ends in %s stops the run with the weights of the last whole step', async (errno) => {
    let fails: (call: FileCall) => boolean = () => false;
    const files = observeFiles(nodeFiles, (call) => {
      if (fails(call)) throw Object.assign(new Error('i/o error'), { code: errno });
    });
    const session = await opened({ clip_by: 'file' }, { files });
    const before: string[] = [];
    const error = await refusal(async () => {
      for await (const event of fit(session)) {
        if (event.kind !== 'step') continue;
        before.push(await digest(session));
        let writes = 0;
        if (event.step === 2) fails = ({ verb, path }) => path.includes('.spill-') && verb === 'write' && ++writes === 4;
      }
    });
    expect(error).toMatchObject({ code: 'FileError', details: { errno } });
    expect(error.message).toMatch(new RegExp(`^write .*\\.spill-.*: ${errno}.*spill_dir`));
    expect(await digest(session)).toBe(before[1]);
    expect(session.done).toBe(2);
    // The disk has room again: the run goes on, and ends where an undisturbed one ends.
    fails = () => false;
    const whole = await opened({ clip_by: 'file', model_name_or_path: session.config.model_name_or_path, datasets: session.config.datasets as never });
    expect(await run(session)).toBe(await run(whole));
  });

  test('a read that fails after the first update goes back and does the step again: no data are skipped', async () => {
    let armed = false;
    let reads = 0;
    const files = observeFiles(nodeFiles, ({ verb, path }) => {
      if (armed && path.includes('.spill-') && verb === 'read' && ++reads === 5) throw Object.assign(new Error('i/o error'), { code: 'EIO' });
    });
    const session = await opened({ clip_by: 'file', save_steps: 1, save_from: 'weights' }, { files });
    const kinds: string[] = [];
    for await (const event of fit(session)) {
      kinds.push(`${event.kind} ${event.step}`);
      if (event.kind === 'saved' && event.step === 1) armed = true;
      if (event.kind !== 'rolled back') continue;
      expect(event.again).toBe(true);
      expect(event.error.message).toMatch(/read .*\.spill-.*EIO.*4 parameters up to .* had been updated before/);
    }
    expect(kinds).toEqual(['step 1', 'saved 1', 'rolled back 2', 'step 2', 'saved 2', 'step 3', 'saved 3']);
    expect([...session.skipped]).toEqual([]);
    const whole = await opened({ clip_by: 'file', model_name_or_path: session.config.model_name_or_path, datasets: session.config.datasets as never });
    expect(await digest(session)).toBe(await run(whole));
  });

  test('a read that fails twice ends the run; its weights are neither trained nor saved until they are restored', async () => {
    let fails = false;
    let reads = 0;
    const files = observeFiles(nodeFiles, ({ verb, path }) => {
      if (fails && path.includes('.spill-') && verb === 'read' && ++reads % 5 === 0) throw Object.assign(new Error('i/o error'), { code: 'EIO' });
    });
    const session = await opened({ clip_by: 'file', save_steps: 1, save_from: 'weights' }, { files });
    const kinds: string[] = [];
    const error = await refusal(async () => {
      for await (const event of fit(session)) {
        kinds.push(`${event.kind} ${event.step}`);
        fails = event.step >= 2;
      }
    });
    expect(kinds).toEqual(['step 1', 'saved 1', 'step 2', 'saved 2', 'rolled back 3']);
    expect(error).toMatchObject({ code: 'FileError', details: { errno: 'EIO' } });
    expect(error.message).toMatch(/read .*\.spill-.*EIO.*tried twice and is not saved; the last checkpoint is whole/s);
    expect((await refusal(() => session.save())).code).toBe('TornWeights');
    expect((await refusal(() => run(session))).code).toBe('TornWeights');
    fails = false;
    await session.restore();
    const whole = await opened({ clip_by: 'file', model_name_or_path: session.config.model_name_or_path, datasets: session.config.datasets as never });
    expect(await run(session)).toBe(await run(whole));
  });

  test('that ends early is named', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lomo-spill-'));
    await using file = await openSpillFile(folder, { files: nodeFiles, bytes: 8 });
    await file.write(Uint8Array.of(1, 2, 3, 4), 4);
    const into = new Uint8Array(4);
    await file.read(into, 4);
    expect([...into]).toEqual([1, 2, 3, 4]);
    await expect(file.read(new Uint8Array(8), 4)).rejects.toThrow(/the file ends at 8, 8 bytes were written at 4/);
  });
});
