// Texts of 4 MiB that could become gigabytes, in a process whose heap is 512 MiB: refused in a time that is linear in their size.
import { defaultLimits, parseHeader, parseJson } from '@lomo/models';
import { isLomoError } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { bombs } from '../src/bombs.ts';

const size = 4 * 2 ** 20;
/** Nanoseconds of the processor for one byte. The slowest, one escape after another, takes some 40. */
const nsPerByte = 400;

test.each(bombs(size))('$name', ({ text, header, json }) => {
  const bytes = new TextEncoder().encode(text);
  for (const [read, expected] of [
    [() => parseHeader(bytes, 'x.safetensors', { fileBytes: bytes.byteLength + 8, limits: defaultLimits }), header],
    [() => parseJson(bytes, 'x.json'), json],
  ] as const) {
    const start = process.cpuUsage();
    let error: unknown = null;
    try {
      read();
    } catch (caught) {
      error = caught;
    }
    const { user, system } = process.cpuUsage(start);
    expect(((user + system) * 1000) / bytes.byteLength).toBeLessThan(nsPerByte);
    if (expected === null) expect(error).toBeNull();
    else {
      expect(isLomoError(error)).toBe(true);
      expect((error as Error).message).toMatch(expected);
      expect((error as Error).message.length).toBeLessThan(1000);
    }
  }
});
