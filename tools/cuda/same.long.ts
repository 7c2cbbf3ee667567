// Every two values of every axis meet in some row, with steps of 1,024 tokens, two chunks: equal bits. `pnpm test:long cuda/same`.
import { afterAll, expect, test } from 'vitest';
import { coveringArray } from '../../apps/lomo/test/same.ts';
import { double } from '../../packages/cuda/test/double.ts';
import build from '../../packages/cuda/test/build.ts';
import { axes, digestOf, referenceOf } from './test/same.ts';
import type { Way } from './test/same.ts';

build();
const backend = double();
afterAll(() => backend[Symbol.asyncDispose]());

const tokens = 1024;
const { rows } = coveringArray<Way>((way) => referenceOf(way, tokens) !== undefined, axes);
const known = new Map<string, Promise<string>>();
const reference = (way: Way): Promise<string> => {
  const key = Object.values(way).join(', ');
  const digest = known.get(key) ?? digestOf(backend, way, tokens);
  known.set(key, digest);
  return digest;
};

test.each(rows.map((way) => [Object.values(way).join(', '), way] as const))('%s', async (_, way) => {
  const wanted = await reference(referenceOf(way, tokens)!);
  expect(await digestOf(backend, way, tokens)).toBe(wanted);
}, 3_600_000);
