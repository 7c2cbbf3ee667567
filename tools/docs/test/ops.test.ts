// docs/ops.md is what the definitions say now.
import { readFileSync } from 'node:fs';
import { cpu } from '@lomo/cpu';
import { optimOps } from '@lomo/optim';
import { ReferenceBackend, tensorOps } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { opsPage } from '../src/ops.ts';

test('docs/ops.md is up to date; else run `pnpm docs:ops`', async () => {
  await using backend = cpu({ threads: 1 });
  expect(readFileSync(new URL('../../../docs/ops.md', import.meta.url), 'utf8')).toBe(opsPage(backend));
});

test('every op has a row; kernels are the ones the backend has, not the ones the definition wishes for', () => {
  const without = opsPage(new ReferenceBackend({ ops: tensorOps.filter((op) => op.name !== 'rms_norm') }));
  for (const op of [...tensorOps, ...optimOps]) expect(without).toContain(`| **${op.name}** |`);
  expect(without).toMatch(/\*\*rms_norm\*\* \| `activation, real -> activation, f32` \| eps \| f32, bf16, f16 \| yes \| - \|/);
  expect(without).toMatch(/\*\*silu_mul\*\* \| `real, real -> real` \|  \| f32, bf16 \| yes \| f32, bf16 \|/);
});
