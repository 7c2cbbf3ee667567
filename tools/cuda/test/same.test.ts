// Ways of the same computation give the same bits on CUDA's kernels: every value of every axis in some row. Every two values meet in
// `pnpm test:long cuda/same`, with steps of more than a chunk of tokens.
import type { CudaBackend } from '@lomo/cuda';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { double } from '../../../packages/cuda/test/double.ts';
import { axes, digestOf, referenceOf } from './same.ts';
import type { Way } from './same.ts';

let backend: CudaBackend;
beforeAll(() => {
  backend = double();
});
afterAll(() => backend[Symbol.asyncDispose]());

const tokens = 64;
const ways: readonly Way[] = [
  { rule: 'lomo', dtype: 'bf16', clip: 'none', head: 'tiles', split: '4 factors', tile: 16, tapes: 'kept', threads: '1', eager: '15' },
  { rule: 'adalomo', dtype: 'f16', clip: 'memory', head: 'tiles', split: '2 factors', tile: 16, tapes: 'recomputed', threads: '20', eager: '1' },
  { rule: 'adamw', dtype: 'f32', clip: 'value', head: 'chunks', split: 'one', tile: 0, tapes: 'kept', threads: '20', eager: '0' },
  { rule: 'lomo', dtype: 'f16', clip: 'two-pass', head: 'tiles', split: '2 factors', tile: 0, tapes: 'recomputed', threads: '0', eager: '1' },
];
const references: string[] = [];

test.each(ways.map((way) => [Object.values(way).join(', '), way] as const))('%s', async (_, way) => {
  const reference = await digestOf(backend, referenceOf(way, tokens)!, tokens);
  references.push(reference);
  expect(await digestOf(backend, way, tokens)).toBe(reference);
});

test('and other computations other bits; no value of an axis is left out but one that needs 1,024 tokens', () => {
  expect(new Set(references).size).toBe(ways.length);
  const never = Object.entries(axes).flatMap(([axis, values]) => values.filter((value) => !ways.some((way) => way[axis as keyof Way] === value)));
  expect(never).toEqual(['2 buffer']);
});
