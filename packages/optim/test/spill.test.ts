// Spilled gradients without a model: what one step holds may be more than the step before it held.
import { Grad } from '@lomo/tensor';
import { expect, test } from 'vitest';
import type { SpillStore } from '../src/index.ts';
import { lomo } from '../src/index.ts';
import { Given } from './given.ts';

function store(): SpillStore {
  const bytes = new Uint8Array(1 << 16);
  return {
    write: async (from, position) => bytes.set(from, position),
    read: async (into, position) => into.set(bytes.subarray(position, position + into.byteLength)),
  };
}

test('a parameter that had no gradient at first, and then has one, comes back whole', async () => {
  const start = { a: { shape: [1, 2], values: [1, 2] }, b: { shape: [40, 2], values: Array.from({ length: 80 }, (_, i) => i) } };
  const given = new Given(start, { rule: lomo, atomic: true, spill: store() });
  const { device, step, optimizer, parameters } = given;
  step.begin({ step: 1, seed: 1, lr: 0, trained: 1 });
  const [pass] = optimizer.passes;
  pass!.settle(parameters.get('a')!, new Grad(device, [1, 2], []), { step, order: 0 });
  await pass!.drain!();
  await pass!.finish(step);
  for (const few of [{ a: [1, 1] }, { a: [1, 1], b: Array.from({ length: 80 }, () => 1) }]) await given.update(few, { step: 2, lr: 1 });
  expect(await given.read('a')).toEqual([-1, 0]);
  expect(await given.read('b')).toEqual(Array.from({ length: 80 }, (_, i) => i - 1));
});
