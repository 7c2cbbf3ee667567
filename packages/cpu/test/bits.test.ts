// Bits: products do not depend on the number of threads, on the row tile, on rows beside them, or on how the tokens are split.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Random } from '@lomo/tensor';
import { cpu } from '../src/index.ts';
import { Arena, draw, oneDnn } from './arena.ts';
import type { Real } from './arena.ts';

let arenas: readonly Arena[] = [];
beforeAll(() => {
  arenas = [1, 2, 4].map((threads) => new Arena(cpu({ threads, ...oneDnn }), 96 << 20));
});
afterAll(async () => {
  for (const { backend } of arenas) await backend[Symbol.asyncDispose]();
});

const dimensions = [1, 2, 7, 16, 17, 64, 65, 100, 128, 200, 256, 384] as const;

test.each(['f32', 'bf16'] as const)('a 64 x 64 gradient over 8,192 tokens, %s', async (dtype) => {
  const random = new Random(1);
  const [dy, x] = [draw(random, 8192 * 64, dtype), draw(random, 8192 * 64, dtype)];
  const results: Buffer[] = [];
  for (const arena of arenas) {
    arena.reset();
    const g = arena.region([64, 64]);
    arena.launch('weight_grad', { ins: [arena.put([8192, 64], dtype, dy.data), arena.put([8192, 64], dtype, x.data)], outs: [g] }, [0]);
    results.push(await arena.bytes(g));
  }
  expect(results[1]!.equals(results[0]!)).toBe(true);
  expect(results[2]!.equals(results[0]!)).toBe(true);
});

test.each([1, 2, 3, 4])('weight gradients: threads, row tiles, pieces of the tokens; seed %i', async (seed) => {
  const random = new Random(seed);
  const differing: string[] = [];
  for (let round = 0; round < 15; round++) {
    const dtype = random.pick<Real>(['f32', 'bf16']);
    const [tokens, n, k] = [random.pick([1, 100, 511, 512, 513, 1024, 1500, 2048]), random.pick([...dimensions]), random.pick([...dimensions])];
    const [dyData, xData] = [draw(random, tokens * n, dtype).data, draw(random, tokens * k, dtype).data];
    const what = `${dtype} T ${tokens} n ${n} k ${k}`;
    let whole: Buffer | null = null;
    for (const arena of arenas) {
      arena.reset();
      const ins = [arena.put([tokens, n], dtype, dyData), arena.put([tokens, k], dtype, xData)] as const;
      const g = arena.region([n, k]);
      arena.launch('weight_grad', { ins, outs: [g] }, [0]);
      const bytes = await arena.bytes(g);
      whole ??= bytes;
      if (!bytes.equals(whole)) differing.push(`${what}: ${arena.backend.threads} threads`);

      const tile = random.int(1, n);
      for (let row = 0; row < n; row += tile) {
        const part = { ...g, shape: [Math.min(tile, n - row), k] };
        arena.launch('weight_grad', { ins, outs: [part] }, [row]);
        const got = await arena.bytes(part);
        if (!got.equals(whole.subarray(row * k * 4, row * k * 4 + got.length))) differing.push(`${what}: tile of ${tile} at ${row}, ${arena.backend.threads} threads`);
      }

      const size = dtype === 'f32' ? 4 : 2;
      for (let t = 0; t < tokens; ) {
        const count = Math.min(tokens - t, 512 * random.int(1, 2));
        const piece = [{ ...ins[0], offset: ins[0].offset + t * n * size, shape: [count, n] }, { ...ins[1], offset: ins[1].offset + t * k * size, shape: [count, k] }];
        if (t === 0) arena.launch('weight_grad', { ins: piece, outs: [g] }, [0]);
        else arena.launch('weight_grad_add', { ins: piece, inouts: [g] }, [0]);
        t += count;
      }
      if (!(await arena.bytes(g)).equals(whole)) differing.push(`${what}: pieces, ${arena.backend.threads} threads`);
    }
  }
  expect(differing).toEqual([]);
});

test.each([1, 2, 3, 4])('matmul: threads, and rows computed alone; seed %i', async (seed) => {
  const random = new Random(50 + seed);
  const differing: string[] = [];
  for (let round = 0; round < 20; round++) {
    const dtype = random.pick<Real>(['f32', 'bf16']);
    const out = random.pick<Real>(['f32', dtype]);
    const [m, n, k] = [random.pick([...dimensions]), random.pick([...dimensions]), random.pick([...dimensions, 768, 2048, 3000])];
    const [ta, tb] = [random.int(0, 1), random.int(0, 1)];
    const [aData, bData] = [draw(random, m * k, dtype).data, draw(random, k * n, dtype).data];
    const rows = random.int(1, m);
    let whole: Buffer | null = null;
    for (const arena of arenas) {
      arena.reset();
      const a = arena.put(ta ? [k, m] : [m, k], dtype, aData);
      const b = arena.put(tb ? [n, k] : [k, n], dtype, bData);
      const c = arena.region([m, n], out);
      arena.launch('matmul', { ins: [a, b], outs: [c] }, [ta, tb, 1]);
      const bytes = await arena.bytes(c);
      whole ??= bytes;
      const what = `${dtype} -> ${out} m ${m} n ${n} k ${k} ta ${ta} tb ${tb}, ${arena.backend.threads} threads`;
      if (!bytes.equals(whole)) differing.push(what);
      if (ta === 1) continue;
      const part = { ...c, shape: [rows, n] };
      arena.launch('matmul', { ins: [{ ...a, shape: [rows, k] }, b], outs: [part] }, [ta, tb, 1]);
      const got = await arena.bytes(part);
      if (!got.equals(whole.subarray(0, got.length))) differing.push(`${what}, ${rows} rows alone`);
    }
  }
  expect(differing).toEqual([]);
});
