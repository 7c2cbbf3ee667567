// The full product of what is computed and how: every way gives the bits of its reference. About 24,000 short runs: `pnpm test:long sameness`.
import { afterAll, expect, test } from 'vitest';
import { axes, Digests, isRepeated, product, referenceOf, wordsOf } from '../../apps/lomo/test/same.ts';

const digests = new Digests();
afterAll(() => digests[Symbol.asyncDispose]());

const rows = product().filter((row) => !isRepeated(row) && referenceOf(row) !== undefined);
const kinds = axes.rule.flatMap((rule) => axes.dtype.flatMap((dtype) => axes.clip.map((clip) => [rule, dtype, clip] as const)));

test.each(kinds)('%s in %s, clipped by: %s', async (rule, dtype, clip) => {
  const wrong: string[] = [];
  let held = 0;
  for (const row of rows.filter((r) => r.rule === rule && r.dtype === dtype && r.clip === clip)) {
    if ((await digests.of(row)) !== (await digests.reference(referenceOf(row)!))) wrong.push(wordsOf(row));
    held++;
  }
  expect(wrong).toEqual([]);
  expect(held).toBe(dtype === 'f32' ? 198 : 396);
}, 1_800_000);
