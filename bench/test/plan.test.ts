// The bars of bench plan: how far a process may end from what was said of it, above and below.
import { expect, test } from 'vitest';
import type { PlanCell } from '../src/plan.ts';
import { concluded, judged } from '../src/plan.ts';

const mebibyte = 2 ** 20;
const cell = (expected: number, highest: number): PlanCell => {
  const extent = (expected - 30) * mebibyte;
  return {
    name: `said ${expected}, held ${highest}`,
    extent,
    reserved: extent,
    expected: { start: 10 * mebibyte, arena: extent, growth: 20 * mebibyte, total: expected * mebibyte },
    highest: highest * mebibyte,
    sights: [{ name: 'end', resident: 0, highest: 0, files: 2 * mebibyte, code: mebibyte, heaps: 4 * mebibyte, v8: 3 * mebibyte }],
    losses: [1],
  };
};

test('above: 24 MiB or 3 %; below: 16 MiB or 1 %; whichever is more', () => {
  const held = (expected: number, highest: number): boolean => judged(cell(expected, highest)).held;
  expect([held(124, 100), held(125, 100), held(84, 100), held(83, 100)]).toEqual([true, false, true, false]);
  expect([held(2060, 2000), held(2061, 2000), held(1980, 2000), held(1979, 2000)]).toEqual([true, false, true, false]);
});

test('a bar missed is named with its numbers, and so is memory reserved that was not planned', () => {
  const report = concluded([cell(104, 100), cell(80, 100), { ...cell(100, 100), reserved: 1 }], 2);
  expect(report.missed).toEqual(['said 80, held 100: expected 80.0 MiB, held 100.0: under by 20.0, allowed are 16.0', `said 100, held 100: the plan says ${70 * mebibyte} bytes, the backend has reserved 1`]);
  expect(report.figure).toBe('1 of 3 within their bars; training added 16.0 to 40.0 MiB; furthest off said 80, held 100: -20.0 MiB of 16.0 allowed');
  expect(report.lines.at(-1)).toMatch(/^end +2\.0 +1\.0 +4\.0 +7\.0 +3\.0$/m);
});
