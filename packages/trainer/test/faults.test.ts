// What a failing disk does to saves and resumes: a slice of the sweep over every file call, and disks that give and take little by little.
import { nodeFiles } from '@lomo/models';
import type { Files } from '@lomo/models';
import { afterEach, describe, expect, test } from 'vitest';
import type { Session } from '../src/index.ts';
import { readState } from '../src/index.ts';
import { digest, fake, saveCases, sweepOutages, sweepResume, sweepSaves } from './fault_sweep.ts';
import { open } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function opened(files: Files): Promise<Session> {
  const session = await open({ optim: 'adamw' }, { files });
  sessions.push(session);
  return session;
}

describe.each(saveCases)('$name', (wanted) => {
  test.each([false, true])('keeps what was saved whichever file call fails; from a copy: %s', async (copied) => {
    expect(await sweepSaves(wanted, { copied, from: copied ? 2 : 1, stride: 6 })).toBeGreaterThan(5);
  });
});

test('a resume names path and errno whichever file call fails, leaves the checkpoint, and works the next time', async () => {
  expect(await sweepResume({ from: 1, stride: 3 })).toBeGreaterThan(5);
});

test('a disk that is gone in the middle of a save loses nothing', async () => {
  expect(await sweepOutages({ from: 1, stride: 6 })).toBeGreaterThan(5);
});

test('short reads and writes change no byte', async () => {
  const piecemeal: Files = {
    ...nodeFiles,
    open: async (path, mode) => {
      const file = await nodeFiles.open(path, mode);
      const some = (bytes: Uint8Array): Uint8Array => bytes.subarray(0, Math.max(1, Math.min(bytes.byteLength, 1 + (bytes.byteLength % 613))));
      return { ...file, read: (into, position) => (into.byteLength === 0 ? Promise.resolve(0) : file.read(some(into), position)), write: (from, position) => file.write(some(from), position) };
    },
  };
  const session = await opened(piecemeal);
  fake(session, 1);
  const expected = await digest(session);
  const { path } = await session.save();
  const plain = await opened(nodeFiles);
  fake(plain, 1);
  const { path: other } = await plain.save();
  expect((await readState(path)).files['model.safetensors']).toBe((await readState(other)).files['model.safetensors']);
  fake(session, 0);
  await session.resume(path);
  expect(await digest(session)).toBe(expected);
});

test('a device that takes no byte any more is an error, not a loop', async () => {
  const stuck: Files = { ...nodeFiles, open: async (path, mode) => ({ ...(await nodeFiles.open(path, mode)), write: () => Promise.resolve(0) }) };
  const session = await opened(stuck);
  await expect(session.save()).rejects.toMatchObject({ code: 'FileError', details: { errno: 'EIO', verb: 'write' } });
});
