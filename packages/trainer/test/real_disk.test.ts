// Disks that really are full or read-only, and a process that really has no descriptor left. Needs root, for mount and prlimit; skipped with the reason elsewhere.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isLomoError } from '@lomo/tensor';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Session } from '../src/index.ts';
import { listCheckpoints } from '../src/index.ts';
import { digest, fake } from './fault_sweep.ts';
import { open } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function opened(output_dir: string): Promise<Session> {
  const session = await open({ output_dir, save_total_limit: 1000 });
  sessions.push(session);
  return session;
}

/** What `command` says no with; null where it works. */
function refusal(command: string, args: readonly string[]): string | null {
  try {
    execFileSync(command, args, { stdio: 'pipe' });
    return null;
  } catch (error) {
    return error instanceof Error ? error.message.split('\n').find((line) => line !== '')! : String(error);
  }
}

const noMount = ((): string | null => {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-mount-'));
  const said = refusal('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', folder]);
  if (said === null) execFileSync('umount', [folder]);
  rmSync(folder, { recursive: true });
  return said;
})();
const noLimit = refusal('prlimit', ['--pid', String(process.pid), '--nofile']);

const why = (reason: string | null): string => (reason === null ? '' : ` (skipped: ${reason})`);

describe.skipIf(noMount !== null)(`a file system of 1 MiB${why(noMount)}`, () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'lomo-mount-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', folder]);
    return () => {
      execFileSync('umount', [folder]);
      rmSync(folder, { recursive: true });
    };
  });

  async function fails(session: Session): Promise<{ readonly code: string; readonly errno: unknown; readonly message: string }> {
    const error = await session.save().then(() => null, (e: unknown) => e);
    if (!isLomoError(error)) throw new Error(`expected a LomoError, got ${String(error)}`);
    return { code: error.code, errno: error.details['errno'], message: error.message };
  }

  test('that is full: the last checkpoint is whole, the error says what to do, the room is given back, and the next save works', async () => {
    const session = await opened(join(folder, 'run'));
    expect(await session.probe()).toEqual([expect.stringMatching(/1001 checkpoints of .* are missing/)]);
    let error = null;
    let last = '';
    for (let step = 1; error === null && step < 100; step++) {
      fake(session, step);
      const written = await digest(session);
      error = await session.save().then(() => null, (e: unknown) => e);
      if (error === null) last = written;
    }
    expect(error).toMatchObject({ code: 'FileError', details: { errno: 'ENOSPC' } });
    expect(String(error)).toMatch(/step-0000\d\d\.partial.*: ENOSPC, the disk is full: free space or choose another folder/);
    const found = await listCheckpoints(session.root);
    expect(found.length).toBeGreaterThan(5);
    expect(readdirSync(session.root)).toHaveLength(found.length);
    await session.resume(found[0]!.path);
    expect(await digest(session)).toBe(last);
    rmSync(found.at(-1)!.path, { recursive: true });
    fake(session, 100);
    await session.save();
    expect((await listCheckpoints(session.root))[0]!.step).toBe(100);
  });

  test('that turns read-only: named by the probe and by a save, and nothing is lost', async () => {
    const session = await opened(join(folder, 'run'));
    fake(session, 1);
    await session.save();
    const last = await digest(session);
    execFileSync('mount', ['-o', 'remount,ro', folder]);
    fake(session, 2);
    expect(await fails(session)).toMatchObject({ code: 'FileError', errno: 'EROFS', message: expect.stringContaining(session.root) });
    await expect(session.probe()).rejects.toMatchObject({ code: 'FileError', details: { errno: 'EROFS' } });
    await session.resume((await session.newest()).path!);
    expect(await digest(session)).toBe(last);
    execFileSync('mount', ['-o', 'remount,rw', folder]);
    fake(session, 2);
    await session.save();
    expect((await listCheckpoints(session.root)).map(({ step }) => step)).toEqual([2, 1]);
  });
});

describe.skipIf(noLimit !== null)(`a process that has few descriptors left${why(noLimit)}`, () => {
  test('says EMFILE and the path, loses nothing, and saves again when there are some', async () => {
    const session = await opened(mkdtempSync(join(tmpdir(), 'lomo-descriptors-')));
    fake(session, 1);
    await session.save();
    const last = await digest(session);
    const limit = /(\d+|unlimited)\s+(\d+|unlimited)\s/.exec(execFileSync('prlimit', ['--pid', String(process.pid), '--nofile', '--output', 'SOFT,HARD', '--noheadings'], { encoding: 'utf8' }))!;
    execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=128:${limit[2]}`]);
    const held: fs.FileHandle[] = [];
    const take = async (): Promise<void> => {
      for (;;) {
        const handle = await fs.open('/dev/null').catch(() => null);
        if (handle === null) return;
        held.push(handle);
      }
    };
    const errors: unknown[] = [];
    try {
      await take();
      for (let free = 0; free < 3; free++) {
        fake(session, 2);
        errors.push(await session.save().then(() => 'saved', (e: unknown) => e));
        await held.pop()!.close();
      }
    } finally {
      for (const handle of held) await handle.close();
      execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${limit[1]}:${limit[2]}`]);
    }
    expect(errors[0]).toMatchObject({ code: 'FileError', details: { errno: 'EMFILE' } });
    expect(String(errors[0])).toMatch(/^LomoError: \w+ \/.*: EMFILE, too many open files: raise `ulimit -n`/);
    // One descriptor is enough until a file is copied, which takes two.
    expect(errors[1]).toMatchObject({ code: 'FileError', details: { errno: 'EMFILE', verb: 'open' } });
    const first = (await listCheckpoints(session.root)).find(({ step }) => step === 1)!;
    await session.resume(first.path);
    expect(await digest(session)).toBe(last);
    fake(session, 3);
    await session.save();
    expect((await listCheckpoints(session.root))[0]!.step).toBe(3);
  });
});
