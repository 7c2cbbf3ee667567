// What only a GPU can prove: one list, packages/cuda/gpu_only.json, which docs/cuda.md says in words and the GPU bench ticks off.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tick } from '../../../bench/src/gpu/claims.ts';

const root = join(import.meta.dirname, '../../..');
const list = JSON.parse(readFileSync(join(root, 'packages/cuda/gpu_only.json'), 'utf8')) as readonly { readonly id: string; readonly name: string; readonly claim: string }[];

test('docs/cuda.md has every claim under its id, in this order, and no other', () => {
  const section = readFileSync(join(root, 'docs/cuda.md'), 'utf8').split('## What only a GPU can prove\n')[1]!.split('\n## ')[0]!;
  expect([...section.matchAll(/^- `([\w-]+)`, (.*?): (.*)$/gm)].map(([, id, name, claim]) => ({ id, name, claim }))).toEqual(list);
  expect(new Set(list.map(({ id }) => id)).size).toBe(list.length);
});

test('what the GPU bench ticks off is in it', () => {
  const names = list.map(({ name }) => name);
  for (const { name, state } of tick({})) {
    expect(names).toContain(name);
    expect(state, `${name}, with nothing measured`).toBe('open');
  }
});
