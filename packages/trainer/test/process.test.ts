// What a process is expected to come to: the arena in whole huge pages, on top of what is resident and what training adds.
import { expect, test } from 'vitest';
import { arenaRoom, expectedProcess, growthBytes } from '../src/process.ts';

const mebibyte = 2 ** 20;

test('the parts add up, the arena in pages of 2 MiB', () => {
  expect(expectedProcess(3 * mebibyte + 1, 70 * mebibyte)).toEqual({ start: 70 * mebibyte, arena: 4 * mebibyte, growth: growthBytes, total: 74 * mebibyte + growthBytes });
  expect(expectedProcess(0, 1).arena).toBe(0);
});

test('an arena fits exactly where the whole process does: its pages and what training adds', () => {
  for (const extent of [1, 2 * mebibyte, 2 * mebibyte + 1, 777 * mebibyte - 3]) {
    const { start, total } = expectedProcess(extent, 70 * mebibyte);
    const least = total - start;
    expect(arenaRoom(least)).toBeGreaterThanOrEqual(extent);
    expect(arenaRoom(least - 1)).toBeLessThan(extent);
  }
  expect(arenaRoom(growthBytes)).toBe(0);
  expect(arenaRoom(5)).toBe(0);
});

test('the start is what this process holds now', () => {
  const before = process.memoryUsage.rss();
  const { start } = expectedProcess(2 ** 30);
  expect(Math.abs(start - before)).toBeLessThan(32 * mebibyte);
});
