// The bars of bench memory: our leanest process against the leanest of theirs; and the peer's preload is built or its absence named.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '@lomo/tensor';
import { expect, test } from 'vitest';
import type { Measured, MemoryCell } from '../src/memory.ts';
import { comparisons, conclude } from '../src/memory.ts';
import { measure } from '../src/measure.ts';
import { tunedPreload } from '../src/peer.ts';

const side = (name: string, whole: number, above: number): Measured => ({ side: name, whole, above, weights: 10, start: 5, tokensPerSecond: 1 });
const facts = { models: ['1m'], threads: 2, torch: '2', preload: null, absent: 'no peer here' };
const cell: MemoryCell = {
  name: '1m f32 4x2',
  ours: [side('kept', 60, 9), side('recomputed', 40, 20)],
  tuned: [side('lomo', 120, 30), side('hook', 100, 40)],
  stock: [side('stock', 110, 25)],
};

test('each bar takes the leanest process of both sides by its own measure', () => {
  const found = comparisons(cell);
  expect(found.map(({ share, bar, of, against }) => [share, bar, of, against])).toEqual([
    [0.4, 0.5, 'recomputed', 'hook'],
    [40 / 110, 0.4, 'recomputed', 'stock'],
    [9 / 25, 0.5, 'kept', 'stock'],
  ]);
  expect(conclude([cell], facts)).toMatchObject({ missed: [], figure: expect.stringMatching(/^3 of 3 bars held; the closest is 1m f32 4x2, whole process against stock: 0\.364 x of at most 0\.4 x/) as string });
});

test('a bar missed is named with its numbers; without a peer nothing is held or missed', () => {
  const { missed } = conclude([{ ...cell, ours: [side('kept', 60, 9)] }], facts);
  expect(missed).toEqual([
    '1m f32 4x2: whole process against tuned with checkpointing: 0.600 x (kept / hook), the bar is 0.5 x',
    '1m f32 4x2: whole process against stock: 0.545 x (kept / stock), the bar is 0.4 x',
  ]);
  const heavy = { ...cell, ours: [{ ...side('kept', 130, 9), weights: 90 }] };
  expect(conclude([heavy], facts).missed[0]).toBe('1m f32 4x2: whole process against tuned with checkpointing: 1.300 x (kept / hook), the bar is 0.5 x; our weights alone are 0.900 x');
  expect(conclude([{ ...cell, tuned: [], stock: [] }], facts)).toMatchObject({ missed: [], figure: 'no peer: no peer here' });
});

test('our side tells its whole peak and what it held before the model; the head by tiles learns the same', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-bench-'));
  try {
    const text = join(folder, 'tokens');
    writeFileSync(text, Uint8Array.from(new Random(1).ints(4096, 16)));
    const common = { model: { name: '1m' }, text, optim: 'lomo', dtype: 'f32', seq: 32, batch: 2, steps: 2, warmup: 1, lr: 0.1, threads: 1, keeps: false } as const;
    const [chunks, tiles] = [await measure(common), await measure({ ...common, headForm: 'tiles' })];
    expect(tiles.losses.map((loss, i) => Math.abs(loss / chunks.losses[i]! - 1) < 1e-5)).toEqual([true, true, true]);
    expect(chunks.whole_peak_mib).toBeGreaterThanOrEqual(chunks.peak_mib);
    expect(chunks.above_start_mib).toBeCloseTo(chunks.peak_mib - chunks.start_mib, 6);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a peer that cannot be tuned is not called tuned', () => {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-bench-'));
  try {
    expect(() => tunedPreload(folder, folder)).toThrow(/mkl_amd\.c is not there: --preload/);
    writeFileSync(join(folder, 'mkl_amd.c'), 'this is no C');
    expect(() => tunedPreload(folder, folder)).toThrow(/cc could not build .*mkl_amd\.c/);
    expect(existsSync(join(folder, 'mkl_amd.so'))).toBe(false);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
