// One run in one folder: who gets the lock, who is refused by name, and how a dead process's lock is taken over by one of many.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeFiles, observeFiles } from '@lomo/models';
import { describe, expect, test } from 'vitest';
import { Disk } from '../../../tools/power_loss/disk.ts';
import type { LockOptions, ProcessIdentity } from '../src/index.ts';
import { fateOf, lockFolder, thisProcess } from '../src/index.ts';

const here = thisProcess();
/** Had this number before, or has it elsewhere. */
const dead: ProcessIdentity = { ...here, started: '1' };
const elsewhere: ProcessIdentity = { ...here, host: 'another-machine', pid: 4711 };
const folder = (): string => mkdtempSync(join(tmpdir(), 'lomo-lock-'));

/** A lock that `owner` left: what a process that was killed leaves. */
async function left(root: string, owner: ProcessIdentity): Promise<void> {
  await lockFolder(root, { here: owner, beat: 2 ** 30 });
}

/** What `lockFolder` says, and what it ends in. */
async function asked(root: string, options: LockOptions = {}) {
  const said: string[] = [];
  const outcome = await lockFolder(root, { say: (line) => said.push(line), ...options }).then((lock) => ({ lock, error: null }), (error: unknown) => ({ lock: null, error }));
  return { ...outcome, said };
}

test('one holds it, another is told who; released, nothing is left, the folders made for it neither', async () => {
  const root = join(folder(), 'runs', 'one');
  const lock = (await lockFolder(root))!;
  expect(JSON.parse(readFileSync(join(root, '.lock', 'owner.json'), 'utf8'))).toMatchObject(here);
  const { error, said } = await asked(root);
  expect(error).toMatchObject({ code: 'FolderInUse', details: { pid: process.pid, host: here.host, folder: root } });
  expect(String(error)).toMatch(new RegExp(`${root} is in use by process ${process.pid} on ${here.host}, since .*stop it \\(kill ${process.pid}: it saves first\\), or choose another output_dir`));
  expect(said).toEqual([]);
  await lock.release();
  await lock.release();
  expect(existsSync(join(root, '..'))).toBe(false);
  await using again = await lockFolder(root);
  expect(again).not.toBeNull();
  writeFileSync(join(root, 'metrics.jsonl'), '');
  await again!.release();
  expect(readdirSync(root)).toEqual(['metrics.jsonl']);
});

describe('left by a process that has ended', () => {
  test.each([['another has its number', dead], ['the machine was booted since', { ...here, boot: 'b' }]])('%s: taken over, and said', async (_, owner) => {
    const root = folder();
    await left(root, owner);
    const { lock, said } = await asked(root);
    expect(said).toEqual([`${join(root, '.lock')} was left by process ${owner.pid} on ${owner.host}, which has ended: taken over`]);
    await lock!.release();
    expect(readdirSync(root)).toEqual([]);
  });

  test.each([['owner.json', ''], ['owner.json', '{"pid": 1}'], ['owner.json', '\0\0\0\0'], ['beat', ''], [null, '']])('damaged by a power loss: %j %j', async (name, text) => {
    const root = folder();
    for (let again = 0; again < 2; again++) {
      mkdirSync(join(root, '.lock'));
      if (name !== null) writeFileSync(join(root, '.lock', name), text);
      const { lock, said } = await asked(root);
      expect(said).toEqual(name === null ? [] : [expect.stringContaining('was left damaged by a crash: taken over')]);
      // The next one finds what this one, killed, would leave.
      if (again === 0) renameSync(join(root, '.lock'), join(folder(), 'gone'));
      else await lock!.release();
    }
    expect(readdirSync(root)).toEqual([]);
  });

  test('many find it at once: one has it, on a real disk and on one in memory', async () => {
    for (let round = 0; round < 12; round++) {
      const { root, files } = round % 3 === 0 ? { root: folder(), files: nodeFiles } : { root: '/runs/one', files: observeFiles(new Disk().files, () => {}) };
      await lockFolder(root, { files, here: dead, beat: 2 ** 30 });
      const all = await Promise.all(Array.from({ length: 6 }, () => asked(root, { files })));
      const winners = all.flatMap(({ lock }) => (lock === null ? [] : [lock]));
      expect(winners, all.map(({ error }) => String(error)).join('\n')).toHaveLength(1);
      for (const { error } of all) if (error !== null) expect(error).toMatchObject({ code: 'FolderInUse' });
      await winners[0]!.release();
      expect(await files.list(root).catch(() => [])).toEqual([]);
    }
  });

  test('in the middle of taking it: what it had begun is swept away', async () => {
    const root = folder();
    mkdirSync(join(root, '.lock-3f'));
    await (await lockFolder(root))!.release();
    expect(readdirSync(root)).toEqual([]);
  });
});

describe('held from elsewhere, where nobody here can ask', () => {
  test('silent: watched, then taken over; the one that held it hears of it', async () => {
    const root = folder();
    let lost = 0;
    const other = await lockFolder(root, { here: elsewhere, beat: 600, onLost: () => lost++ });
    const { lock, said } = await asked(root, { silence: 100 });
    expect(said[0]).toBe(`${root} is held by process 4711 on another-machine: watching it for up to 1 s, for it may have ended`);
    expect(said[1]).toContain('taken over');
    await expect.poll(() => lost, { timeout: 5000 }).toBe(1);
    await other!.release();
    expect((await asked(root)).error).toMatchObject({ code: 'FolderInUse' });
    await lock!.release();
  });

  test('giving signs: refused, with what to do there', async () => {
    const root = folder();
    await using _other = await lockFolder(root, { here: elsewhere, beat: 20 });
    const { error } = await asked(root, { silence: 20_000 });
    expect(error).toMatchObject({ code: 'FolderInUse', details: { pid: 4711, host: 'another-machine' } });
    expect(String(error)).toContain('stop it there');
  });
});

test('where nothing can be written none is taken; other failures name path and errno', async () => {
  const failing = (errno: string, verb: string) => observeFiles(nodeFiles, (call) => {
    if (call.verb === verb) throw Object.assign(new Error('injected'), { code: errno });
  });
  for (const errno of ['EROFS', 'EACCES', 'EPERM']) expect(await lockFolder(folder(), { files: failing(errno, 'mkdir') })).toBeNull();
  const root = folder();
  await expect(lockFolder(root, { files: failing('ENOSPC', 'write') })).rejects.toMatchObject({ code: 'FileError', details: { errno: 'ENOSPC' } });
  expect(readdirSync(root)).toEqual([]);
  // No right to rename is no proof that the folder is free.
  await expect(lockFolder(root, { files: failing('EACCES', 'rename') })).rejects.toMatchObject({ code: 'FileError', details: { errno: 'EACCES' } });
  // A disk that refuses when it is given back: the lock of a process that has ended is none.
  let failed = '';
  const late = observeFiles(nodeFiles, (call) => {
    if (call.verb === failed) throw Object.assign(new Error('injected'), { code: 'EIO' });
  });
  const lock = await lockFolder(root, { files: late });
  failed = 'rename';
  await lock!.release();
});

test('a process is told by more than its number', () => {
  expect(fateOf(here, here)).toBe('running');
  expect(fateOf({ ...here, pid: 2 ** 22 + 1 }, here)).toBe('ended');
  expect(fateOf({ ...here, space: 'pid:[1]' }, here)).toBe('elsewhere');
  const old = { boot: null, space: null, started: null };
  expect(fateOf({ ...here, ...old }, { ...here, ...old })).toBe('running');
  expect(fateOf({ ...here, ...old, pid: 2 ** 22 + 1 }, { ...here, ...old })).toBe('ended');
});
