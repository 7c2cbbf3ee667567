// No CPU in disguise: a training step on CUDA with every reference kernel of every op made to throw, and none of @lomo/cpu's symbols loaded.
import { readFileSync } from 'node:fs';
import { Optimizer, lomo, optimOps } from '@lomo/optim';
import { ReferenceBackend, tensorOps } from '@lomo/tensor';
import type { Op } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { double } from '../../../packages/cuda/test/double.ts';
import { make, step } from './steps.ts';

test('a step of training never asks an op for its reference', async () => {
  const asked: string[] = [];
  const ops: readonly Op[] = [...tensorOps, ...optimOps];
  for (const op of ops) {
    Object.defineProperty(op, 'reference', {
      value: () => {
        asked.push(op.name);
        throw new Error(`the reference of ${op.name} was asked for`);
      },
    });
  }
  // The trap holds: the reference backend falls into it.
  const trapped = new ReferenceBackend({ ops });
  expect(() => make(trapped, { rule: lomo })).toThrow(/reference of \w+ was asked for/);
  expect(asked.length).toBe(1);
  const backend = double();
  for (const dtype of ['f32', 'bf16', 'f16'] as const) {
    const made = make(backend, { rule: lomo, dtype, count: 2 });
    expect(made.optimizer).toBeInstanceOf(Optimizer);
    expect((await step(made, 1)).loss).toBeGreaterThan(1);
    made.device.free();
  }
  expect(asked.length).toBe(1);
  expect(readFileSync('/proc/self/maps', 'utf8')).not.toMatch(/lomo_cpu\.node|libdnnl/);
  await backend[Symbol.asyncDispose]();
});
