// Our hand-written declarations against NVIDIA's own headers, and the real NCCL opened by our loader without a driver. Both come from PyPI by
// `node scripts/headers.mjs install`; what is not there is skipped by name.
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { compare, findHeader, headersFolder, interfaces } from '../scripts/headers.mjs';
import { double } from './double.ts';

describe.each(interfaces)('$name', (one) => {
  test.skipIf(findHeader(one.header) === null)(`every number, struct and function of native/${one.api} is as ${one.header} has it`, () => {
    const { complaints, entries } = compare(one);
    expect(complaints).toBe('');
    expect(entries).toBeGreaterThan(10);
  });
});

test.skipIf(findHeader('nvidia/nccl/include/nccl.h') === null)('the real NCCL opens without a driver, from the Python environment that pip put it into', async () => {
  const backend = double({ nccl: '', folders: [headersFolder()] });
  const { name, version, path } = backend.nccl();
  expect([name, version]).toEqual(['NCCL', '2.27.7']);
  // The loader's own paths come first: a machine may have one there.
  expect(path === 'libnccl.so.2' || existsSync(path)).toBe(true);
  await backend[Symbol.asyncDispose]();
});
