// What a launch costs: microseconds on JavaScript's thread, no allocation once warm, no waiting for the work.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cpu } from '../src/index.ts';
import type { CpuBackend } from '../src/index.ts';
import { Arena, signatureOf } from './arena.ts';

let backend: CpuBackend;
let arena: Arena;
beforeAll(() => {
  backend = cpu({ threads: 1 });
  arena = new Arena(backend, 32 << 20);
});
afterAll(() => backend[Symbol.asyncDispose]());

test('a launch costs less than 10 microseconds of JavaScript', async () => {
  const [a, b, c] = [arena.region([8, 16]), arena.region([8, 16]), arena.region([8, 16])];
  const kernel = backend.kernel('add', signatureOf({ ins: [a, b], outs: [c] }));
  const operands = { ins: [a, b], inouts: [], outs: [c], workspace: null };
  const rounds: number[] = [];
  for (let round = 0; round < 60; round++) {
    const start = performance.now();
    for (let i = 0; i < 200; i++) backend.launch(kernel!, operands, [], 'compute');
    rounds.push(((performance.now() - start) / 200) * 1000);
    await backend.read(c);
  }
  const median = rounds.toSorted((x, y) => x - y)[30]!;
  process.stdout.write(`one launch: ${median.toFixed(2)} microseconds (median of 60 rounds of 200)\n`);
  expect(median).toBeLessThan(10);
});

test('the same step again allocates nothing', async () => {
  arena.reset();
  const x = arena.region([640, 96], 'bf16');
  const w = arena.region([128, 96], 'bf16');
  const y = arena.region([640, 128], 'bf16');
  const g = arena.region([128, 96]);
  const scalars = arena.region([8]);
  const step = async (): Promise<void> => {
    for (let i = 0; i < 50; i++) {
      backend.write(scalars, new Float32Array(8));
      arena.launch('matmul', { ins: [x, w], outs: [y] }, [0, 1, 1]);
      arena.launch('weight_grad', { ins: [y, x], outs: [g] }, [0]);
      arena.launch('weight_grad_add', { ins: [y, x], inouts: [g] }, [0]);
    }
    await backend.read(scalars);
  };
  await step();
  await step();
  const before = backend.counters();
  for (let i = 0; i < 5; i++) await step();
  const after = backend.counters();
  expect(after.allocations - before.allocations).toBe(0);
  expect(after.launches - before.launches).toBe(750);
});

test('enqueueing does not wait for the work', async () => {
  arena.reset();
  const [a, c] = [arena.region([1024, 1024]), arena.region([1024, 1024])];
  const regions = { ins: [a, a], outs: [c] };
  arena.launch('matmul', regions, [0, 1, 1]);
  await backend.read(c);
  const start = performance.now();
  for (let i = 0; i < 20; i++) arena.launch('matmul', regions, [0, 1, 1]);
  const enqueued = performance.now() - start;
  await backend.read({ ...c, shape: [1] });
  expect(enqueued).toBeLessThan((performance.now() - start) / 4);
});
