// Training is a pure function of configuration, seed and data: equal bytes over threads, runs, splits, tiles, kept tapes and
// recomputation, second passes and spills, on the CPU. Every two settings meet in some row; the full product is tools/sameness.
import { createHash } from 'node:crypto';
import { Device, Random, weightGrad } from '@lomo/tensor';
import { afterAll, describe, expect, test } from 'vitest';
import type { Axes } from './same.ts';
import { axes, coveringArray, Digests, isRepeated, referenceOf, wordsOf } from './same.ts';

const digests = new Digests();
afterAll(() => digests[Symbol.asyncDispose]());

describe('every two settings meet', () => {
  const allowed = (row: Axes): boolean => !isRepeated(row) && referenceOf(row) !== undefined;
  const { rows, pairs } = coveringArray(allowed);

  test('in the rows below', () => {
    const names = Object.keys(axes) as (keyof Axes)[];
    const met = new Set(rows.flatMap((row) => names.flatMap((a, i) => names.slice(i + 1).map((b) => `${a} ${row[a]}, ${b} ${row[b]}`))));
    const wanted = names.flatMap((a, i) => names.slice(i + 1).flatMap((b) => axes[a].flatMap((x) => axes[b].map((y) => `${a} ${x}, ${b} ${y}`))));
    const never = ['dtype f32, rounding nearest', 'head chunks, split 16 factors'];
    expect(wanted.filter((pair) => !met.has(pair))).toEqual(never);
    expect(met.size).toBe(pairs);
  });

  test.each(rows.map((row) => [wordsOf(row), row] as const))('%s', async (_, row) => {
    expect(await digests.of(row)).toBe(await digests.reference(referenceOf(row)!));
  });

  test('other computations have other bits, and two runs the same', async () => {
    const { references } = digests;
    // sgd is LOMO's formula under its textbook name.
    const others = [...references].filter(([words]) => !words.startsWith('sgd'));
    expect(others.length).toBeGreaterThan(15);
    expect(new Set(others.map(([, digest]) => digest)).size).toBe(others.length);
    await using again = new Digests();
    for (const row of rows.slice(0, 4)) expect(await again.reference(referenceOf(row)!)).toBe(references.get(wordsOf(referenceOf(row)!)));
  });
});

test('a 64 x 64 weight gradient over 8192 tokens, on 1, 2 and 4 threads', async () => {
  const seen: string[] = [];
  for (const threads of [1, 2, 4]) {
    const device = new Device(digests.backend(threads), { bytes: 16 * 2 ** 20 });
    const random = new Random(3);
    const [dy, x] = [0, 1].map(() => {
      const tensor = device.allocate({ shape: [8192, 64], dtype: 'f32' }, 'workspace');
      device.writeNumbers(tensor, random.normal(8192 * 64));
      return tensor;
    });
    const tile = device.allocate({ shape: [64, 64], dtype: 'f32' }, 'gradient');
    weightGrad(tile, dy!, x!, { row: 0, add: false });
    seen.push(createHash('sha256').update(new Uint8Array((await device.read(tile)).buffer)).digest('hex'));
    device.free();
  }
  expect(new Set(seen).size).toBe(1);
});
