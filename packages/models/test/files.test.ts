// Folders made through the file layer: deep ones, ones that are there, and places where none can be.
import { mkdtempSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isLomoError } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { nodeFiles } from '../src/index.ts';

async function refused(path: string): Promise<unknown> {
  const error = await nodeFiles.makeFolder(path).then(() => null, (e: unknown) => e);
  expect(isLomoError(error, 'FileError')).toBe(true);
  return isLomoError(error) ? error.details['errno'] : null;
}

test('a folder in folders that are not there yet; one that is there stays; two at once', async () => {
  const root = mkdtempSync(join(tmpdir(), 'lomo-files-'));
  const deep = join(root, 'a/b/c');
  await Promise.all([nodeFiles.makeFolder(deep), nodeFiles.makeFolder(deep)]);
  expect(statSync(deep).isDirectory()).toBe(true);
  await nodeFiles.makeFolder(deep);
  await nodeFiles.makeFolder('/');
});

test('where none can be: an error at once, also where Node would try for ever', async () => {
  const root = mkdtempSync(join(tmpdir(), 'lomo-files-'));
  writeFileSync(join(root, 'file'), '');
  expect(await refused(join(root, 'file'))).toBe('EEXIST');
  expect(await refused(join(root, 'file/inside'))).toBe('ENOTDIR');
  expect(await refused('/proc/lomo/inside')).toBe('ENOENT');
});
