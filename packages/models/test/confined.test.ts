// A folder out of which nothing is opened: links, devices, sockets, and what is put there between the check and the opening.
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { ConfinedFolder, nodeFiles, observeFiles, openCheckpoint, writeSafetensors } from '../src/index.ts';
import type { FileCall, Files } from '../src/index.ts';
import { temporary } from './folders.ts';

const small = { name: 'a', dtype: 'U8', shape: [3], slices: () => [Uint8Array.of(1, 2, 3)] } as const;

/** A model of one tensor, and a file outside that must not be read. */
async function place(): Promise<{ readonly folder: string; readonly secret: string; readonly file: string }> {
  const root = await temporary();
  const folder = join(root, 'model');
  await mkdir(folder);
  await mkdir(join(root, 'elsewhere'));
  const secret = join(root, 'elsewhere', 'secret.safetensors');
  for (const path of [join(folder, 'model.safetensors'), secret]) await writeSafetensors(path, [small]);
  return { folder, secret, file: join(folder, 'model.safetensors') };
}

/** Node's files; `act` happens once, right before the first call of `verb` on `path`. */
function meddling(verb: string, path: string, act: () => void): Files {
  let done = false;
  return observeFiles(nodeFiles, (call: FileCall) => {
    if (done || call.verb !== verb || call.path !== path) return;
    done = true;
    act();
  });
}

describe('what is put in a folder between the check and the opening', () => {
  it.each([
    ['a link to a file outside', ({ file, secret }: Awaited<ReturnType<typeof place>>) => {
      rmSync(file);
      symlinkSync(secret, file);
    }],
    ['another file', ({ file }: Awaited<ReturnType<typeof place>>) => {
      renameSync(file, `${file}.old`);
      writeFileSync(file, 'others');
    }],
    ['a folder around it that leads outside', ({ folder, secret }: Awaited<ReturnType<typeof place>>) => {
      renameSync(folder, `${folder}.old`);
      symlinkSync(join(secret, '..'), folder);
      writeFileSync(join(secret, '..', 'model.safetensors'), 'others');
    }],
    ['a fifo', ({ file }: Awaited<ReturnType<typeof place>>) => {
      rmSync(file);
      execFileSync('mkfifo', [file]);
    }],
  ])('%s: nothing of it is read', async (_, meddle) => {
    const made = await place();
    const read: string[] = [];
    const inner = meddling('open', made.file, () => meddle(made));
    const files = observeFiles(inner, (call) => void (call.verb === 'read' && read.push(call.path)));
    await expect(openCheckpoint(made.folder, { files })).rejects.toMatchObject({ code: 'OutsideFolder', message: expect.stringContaining('was replaced while it was opened') });
    expect(read).toEqual([]);
  });

  it('a file that changes in place afterwards is told by its sum, one that is cut by its length', async () => {
    const { folder, file } = await place();
    const bytes = await readFile(file);
    const { createHash } = await import('node:crypto');
    const sums = new Map([['model.safetensors', createHash('sha256').update(bytes).digest('hex')]]);
    const drain = async (act: () => void): Promise<void> => {
      await using checkpoint = await openCheckpoint(folder, { sums });
      act();
      for await (const _ of checkpoint.files[0]!.walk(new Uint8Array(64)));
    };
    await drain(() => {});
    await expect(drain(() => writeFileSync(file, Uint8Array.from(bytes, (byte, at) => (at === bytes.byteLength - 1 ? byte ^ 1 : byte))))).rejects.toMatchObject({ code: 'CorruptFile', details: { path: file } });
    writeFileSync(file, bytes);
    await expect(drain(() => writeFileSync(file, bytes.subarray(0, -1)))).rejects.toThrow(/tensor "a": truncated file/);
  });
});

describe('what is no regular file of the folder', () => {
  it('devices, fifos, sockets, folders and links to any of them are refused without being opened', async () => {
    const { folder, file } = await place();
    await rm(file);
    const opened: string[] = [];
    const files = observeFiles(nodeFiles, (call) => void (call.verb === 'open' && opened.push(call.path)));
    const refused = async (): Promise<string> => {
      const code: unknown = await openCheckpoint(folder, { files }).then(() => 'opened', (error: { code: string }) => error.code);
      await rm(file, { recursive: true, force: true });
      return String(code);
    };
    execFileSync('mkfifo', [file]);
    expect(await refused()).toBe('NotAFile');
    await mkdir(file);
    expect(await refused()).toBe('NotAFile');
    for (const target of ['/dev/zero', '/dev/stdin', '/proc/self/environ', '/etc/passwd', '../elsewhere/secret.safetensors', '../../../../../../etc/passwd']) {
      await symlink(target, file);
      expect(await refused(), target).toMatch(/OutsideFolder|FileError/);
    }
    const server = createServer().listen(file);
    onTestFinished(() => void server.close());
    await new Promise((resolve) => server.once('listening', resolve));
    expect(await refused()).toBe('NotAFile');
    await symlink('model.safetensors', file);
    expect(await refused()).toMatch(/FileError/);
    expect(opened).toEqual([]);
  });

  it('a link chain is followed to its end, and the blobs of a cache are its own only', async () => {
    const { folder, file, secret } = await place();
    await rename(file, join(folder, 'real'));
    await symlink('real', join(folder, 'middle'));
    await symlink('middle', file);
    await (await openCheckpoint(folder)).close();
    await rm(join(folder, 'middle'));
    await symlink(secret, join(folder, 'middle'));
    await expect(openCheckpoint(folder)).rejects.toMatchObject({ code: 'OutsideFolder' });

    const cache = join(await temporary(), 'models--org--name');
    const snapshot = join(cache, 'snapshots', 'abc');
    await mkdir(snapshot, { recursive: true });
    // Blobs that are themselves a link could lead anywhere.
    await symlink(join(secret, '..'), join(cache, 'blobs'));
    await symlink('../../blobs/secret.safetensors', join(snapshot, 'model.safetensors'));
    await expect(openCheckpoint(snapshot)).rejects.toMatchObject({ code: 'OutsideFolder' });
  });
});

it('a small file is read once, within its limit, and compared with its sum', async () => {
  const { folder } = await place();
  await writeFile(join(folder, 'config.json'), '{"a":1}');
  const inside = await ConfinedFolder.open(folder);
  expect(new TextDecoder().decode(await inside.read('config.json', 7))).toBe('{"a":1}');
  await expect(inside.read('config.json', 6)).rejects.toMatchObject({ code: 'TooLarge', details: { size: 7, limit: 6 } });
  const summed = await ConfinedFolder.open(folder, { sums: new Map([['config.json', '0'.repeat(64)]]) });
  await expect(summed.read('config.json', 7)).rejects.toMatchObject({ code: 'CorruptFile', details: { expected: '0'.repeat(64) } });
  await expect(summed.read('other.json', 7)).rejects.toThrow(/is not among the files/);
});
