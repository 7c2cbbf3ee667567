// Numbers as people read them: no exponent in a size, a time or a count of operations, whatever the unit's edge.
import { expect, test } from 'vitest';
import { bytes, shortTime, significant } from '../src/index.ts';

test('bytes go to the next unit before they need a fourth digit', () => {
  expect([0, 512, 1000, 1024, 999.4 * 1024, 999.6 * 1024, 1020 * 1024, 1.05e6, 1023.9 * 2 ** 20, 14_000_000_000].map(bytes)).toEqual([
    '0 B', '512 B', '0.977 KiB', '1.00 KiB', '999 KiB', '0.976 MiB', '0.996 MiB', '1.00 MiB', '1.00 GiB', '13.0 GiB',
  ]);
});

test('no exponent at any size, time or count', () => {
  for (let power = -3; power < 14; power += 0.01) {
    const n = 10 ** power;
    for (const text of [bytes(Math.round(n)), shortTime(n), significant(n)]) expect(text).not.toMatch(/e[+-]/);
  }
});

test('times and counts', () => {
  expect([0.000_034, 0.0874, 0.0996, 0.23, 0.9996, 3.456, 1234].map(shortTime)).toEqual(['0.034 ms', '87 ms', '99.6 ms', '230 ms', '1.00 s', '3.46 s', '1,230 s']);
  expect([0, 0.0123, 1, 999.7, 12_345].map((n) => significant(n))).toEqual(['0', '0.0123', '1.00', '1,000', '12,300']);
});
