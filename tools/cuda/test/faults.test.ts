// What goes wrong inside a step, on CUDA's kernels: exactly the parameters before an ill gradient have changed, or none; a weight beyond f16; a
// loss that is not finite; loss scaling that finds its way; memory that does not suffice.
import type { CudaBackend } from '@lomo/cuda';
import { adalomo, adamw, lomo } from '@lomo/optim';
import type { Pass } from '@lomo/optim';
import { Dense, Grad, isLomoError } from '@lomo/tensor';
import type { LomoError, Term } from '@lomo/tensor';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { double } from '../../../packages/cuda/test/double.ts';
import { make, step, tensorsOf } from './steps.ts';
import type { StepsOptions } from './steps.ts';

let backend: CudaBackend;
beforeAll(() => {
  backend = double();
});
afterAll(() => backend[Symbol.asyncDispose]());
afterEach(() => {
  delete process.env['LOMO_DOUBLE_MEMORY'];
});

/** The passes, with `value` added to the last element of the gradient that settles as number `number`. */
function injected(passes: readonly Pass[], { number, value }: { readonly number: number; readonly value: number }): Pass[] {
  return passes.map((pass) => ({
    ...pass,
    settle: (p, g, at) => {
      if (at.order !== number) return pass.settle(p, g, at);
      const whole = p.device.allocate({ shape: p.shape, dtype: 'f32' }, 'gradient');
      const size = p.shape.reduce((a, b) => a * b, 1);
      p.device.writeNumbers(whole, Float32Array.from({ length: size }, (_, i) => (i === size - 1 ? value : 0)));
      // The terms stay the ledger's: only what this gradient computes is given back.
      const borrowed = g.terms.map((term): Term => ({ granularity: term.granularity ?? 1, into: (tile, row, add) => term.into(tile, row, add), whole: () => null, release: () => {} }));
      const ill = new Grad(p.device, p.shape, [...borrowed, new Dense(whole)]);
      pass.settle(p, ill, at);
      ill.release();
    },
  }));
}

async function refusal(body: () => Promise<unknown>): Promise<LomoError | null> {
  try {
    await body();
    return null;
  } catch (error) {
    if (isLomoError(error)) return error;
    throw error;
  }
}

// Tiles of a few rows, so that every matrix has several.
const shape = { count: 2, tileBytes: 1024, config: { tie_word_embeddings: false, num_hidden_layers: 1 } } as const;

describe.each<readonly [string, StepsOptions, 'torn' | 'whole', number]>([
  ['lomo, f32, one pass', { rule: lomo, ...shape }, 'torn', NaN],
  ['adalomo, bf16, one pass', { rule: adalomo(), dtype: 'bf16', ...shape }, 'torn', -Infinity],
  ['adamw, f16, two passes', { rule: adamw(), dtype: 'f16', clip: { norm: 0.3 }, ...shape }, 'whole', Infinity],
])('%s', (_, options, kind, value) => {
  test('an ill gradient changes exactly what the mode promises', async () => {
    const first = make(backend, options);
    const order: string[] = [];
    await step(first, 1, { lr: 0, passes: [{ name: 'order', settle: (p) => void order.push(p.path), finish: () => {} }] });
    first.device.free();
    for (const at of [0, 4]) {
      const made = make(backend, options);
      await step(made, 1);
      const [before, { live }] = [await tensorsOf(made), made.device.arena];
      const error = await refusal(() => step(made, 2, { passes: injected(made.optimizer.passes, { number: at, value }) }));
      const after = await tensorsOf(made);
      const changed = new Set([...before].filter(([name, bytes]) => Buffer.compare(bytes, after.get(name)!) !== 0).map(([name]) => name.split(' ')[0]!));
      expect(changed, `${at}: ${order[at]!}`).toEqual(new Set(kind === 'whole' ? [] : order.slice(0, at)));
      expect(error?.code).toBe(kind === 'whole' || at === 0 ? 'NonFiniteGradient' : 'TornStep');
      expect(error?.details['at']).toBe(order[at]);
      expect(made.device.arena.live).toBe(live);
      // The gate opens again: a refused step leaves a device that goes on.
      if (kind === 'whole') expect(await refusal(() => step(made, 2))).toBe(null);
      made.device.free();
    }
  });
});

test('an f16 weight that would pass 65504 closes the gate: no byte changes', async () => {
  const made = make(backend, { rule: lomo, dtype: 'f16', ...shape });
  const target = made.model.parameters.find(({ path }) => path.includes('up_proj'))!;
  const [rows, columns] = [target.shape[0]!, target.shape[1]!];
  made.device.writeNumbers(target.rows(rows - 1, rows), Float64Array.from({ length: columns }, (_x, j) => (j === columns - 1 ? 65504 : 0)));
  let number = -1;
  await step(made, 1, { lr: 0, passes: [{ name: 'order', settle: (p, _g, { order }) => void (p.path === target.path && (number = order)), finish: () => {} }] });
  const before = await tensorsOf(made);
  // Everything before it in the walk has been updated by then: only this parameter is asked about.
  const only = made.optimizer.passes.map((pass): Pass => ({ ...pass, settle: (p, g, at) => (p.path === target.path ? pass.settle(p, g, at) : undefined) }));
  const error = await refusal(() => step(made, 2, { passes: injected(only, { number, value: -1e7 }) }));
  expect(error?.message).toMatch(/up_proj\.weight is not finite, or its update leaves the range of f16 \(65504\)/);
  const after = await tensorsOf(made);
  for (const [name, bytes] of before) expect(Buffer.compare(bytes, after.get(name)!), name).toBe(0);
  made.device.free();
});

test('a loss scale of 1024 leaves the bits of f16 steps; what it lifts out of range is refused whole', async () => {
  const options: StepsOptions = { rule: lomo, dtype: 'f16', clip: { norm: 1 }, ...shape };
  const [plain, scaled] = [make(backend, options), make(backend, options)];
  for (let n = 1; n <= 2; n++) {
    await step(plain, n);
    await step(scaled, n, { lossScale: 1024 });
  }
  const before = await tensorsOf(scaled);
  for (const [name, bytes] of await tensorsOf(plain)) expect(Buffer.compare(bytes, before.get(name)!), name).toBe(0);
  // 1e36 is a number; 1024 times it is not.
  const error = await refusal(() => step(scaled, 3, { lossScale: 1024, passes: injected(scaled.optimizer.passes, { number: 3, value: Math.fround(1e36) * 1024 }) }));
  expect(error?.code).toBe('NonFiniteGradient');
  for (const [name, bytes] of await tensorsOf(scaled)) expect(Buffer.compare(bytes, before.get(name)!), name).toBe(0);
  expect(await refusal(() => step(scaled, 3, { lossScale: 512 }))).toBe(null);
  for (const { device } of [plain, scaled]) device.free();
});

test('a loss that is not finite: NonFiniteLoss, and no byte changes', async () => {
  const made = make(backend, { rule: lomo, ...shape });
  const norm = made.model.parameters.find(({ path }) => path === 'model.norm.weight')!;
  made.device.writeNumbers(norm, new Float64Array(norm.shape[0]!).fill(Infinity));
  const before = await tensorsOf(made);
  expect((await refusal(() => step(made, 1)))?.code).toBe('NonFiniteLoss');
  for (const [name, bytes] of await tensorsOf(made)) expect(Buffer.compare(bytes, before.get(name)!), name).toBe(0);
  made.device.free();
});
