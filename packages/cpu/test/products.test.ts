// Products against float64 loops: random shapes, dtypes, transposes, alpha, bias, accumulation.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Random } from '@lomo/tensor';
import { cpu } from '../src/index.ts';
import type { CpuBackend } from '../src/index.ts';
import { Arena, draw, oneDnn } from './arena.ts';
import type { Real } from './arena.ts';

let backend: CpuBackend;
let arena: Arena;
beforeAll(() => {
  backend = cpu({ threads: 2, ...oneDnn });
  arena = new Arena(backend, 128 << 20);
});
afterAll(() => backend[Symbol.asyncDispose]());

interface Expected {
  readonly sum: number;
  /** Sum of absolute values: what rounding errors scale with. */
  readonly scale: number;
}

function within(got: Float64Array, expected: (i: number) => Expected, relative: number): void {
  let worst = 0;
  got.forEach((x, i) => {
    const { sum, scale } = expected(i);
    worst = Math.max(worst, Math.abs(x - sum) / (scale + 1e-30));
  });
  expect(worst).toBeLessThan(relative);
}

const dimensions = [1, 2, 3, 5, 8, 16, 17, 33, 64, 70, 129] as const;

test.each([1, 2, 3, 4, 5, 6])('matmul and matmul_add, seed %i', async (seed) => {
  const random = new Random(seed);
  for (let round = 0; round < 25; round++) {
    arena.reset();
    const dtype = random.pick<Real>(['f32', 'bf16']);
    const out = random.pick<Real>(['f32', 'bf16']);
    const [m, n, k] = [random.pick([...dimensions]), random.pick([...dimensions]), random.pick([...dimensions, 600])];
    const [ta, tb] = [random.int(0, 1), random.int(0, 1)];
    const alpha = random.pick([1, 1, 0.5, -2]);
    const a = draw(random, m * k, dtype);
    const b = draw(random, k * n, dtype);
    const bias = draw(random, n, dtype);
    const old = draw(random, m * n, out);
    const mode = random.pick(['plain', 'bias', 'add']);
    const ins = [arena.put(ta ? [k, m] : [m, k], dtype, a.data), arena.put(tb ? [n, k] : [k, n], dtype, b.data)];
    if (mode === 'bias') ins.push(arena.put([n], dtype, bias.data));
    const c = arena.put([m, n], out, old.data);
    if (mode === 'add') arena.launch('matmul_add', { ins, inouts: [c] }, [ta, tb, alpha]);
    else arena.launch('matmul', { ins, outs: [c] }, [ta, tb, alpha]);
    const got = await arena.values(c);
    within(
      got,
      (at) => {
        const [i, j] = [Math.floor(at / n), at % n];
        const start = mode === 'add' ? old.values[at]! : mode === 'bias' ? bias.values[j]! : 0;
        let [sum, scale] = [start, Math.abs(start)];
        for (let x = 0; x < k; x++) {
          const term = alpha * a.values[ta ? x * m + i : i * k + x]! * b.values[tb ? j * k + x : x * n + j]!;
          sum += term;
          scale += Math.abs(term);
        }
        return { sum, scale };
      },
      // A bias under alpha passes through c's dtype once.
      out === 'bf16' ? 2 ** -7 : 1e-6,
    );
  }
});

test.each([1, 2, 3])('weight_grad and weight_grad_add of row tiles, seed %i', async (seed) => {
  const random = new Random(100 + seed);
  for (let round = 0; round < 12; round++) {
    arena.reset();
    const dtype = random.pick<Real>(['f32', 'bf16']);
    const [tokens, n, k] = [random.pick([0, 1, 5, 255, 256, 257, 512, 513, 700, 1100]), random.pick([...dimensions]), random.pick([...dimensions])];
    const rows = random.int(1, n);
    const row = random.int(0, n - rows);
    const dy = draw(random, tokens * n, dtype);
    const x = draw(random, tokens * k, dtype);
    const old = draw(random, rows * k, 'f32');
    const adds = random.int(0, 1) === 1;
    const ins = [arena.put([tokens, n], dtype, dy.data), arena.put([tokens, k], dtype, x.data)];
    const g = arena.put([rows, k], 'f32', old.data);
    if (adds) arena.launch('weight_grad_add', { ins, inouts: [g] }, [row]);
    else arena.launch('weight_grad', { ins, outs: [g] }, [row]);
    within(
      await arena.values(g),
      (at) => {
        const [i, j] = [Math.floor(at / k), at % k];
        let [sum, scale] = adds ? [old.values[at]!, Math.abs(old.values[at]!)] : [0, 1e-30];
        for (let t = 0; t < tokens; t++) {
          const term = dy.values[t * n + row + i]! * x.values[t * k + j]!;
          sum += term;
          scale += Math.abs(term);
        }
        return { sum, scale };
      },
      1e-6,
    );
  }
});

test('an empty inner dimension leaves zero, the bias, or what was there', async () => {
  arena.reset();
  const ins = [arena.region([2, 0]), arena.region([0, 3])];
  const c = arena.put([2, 3], 'f32', Float32Array.of(1, 2, 3, 4, 5, 6));
  arena.launch('matmul_add', { ins, inouts: [c] }, [0, 0, 1]);
  expect([...(await arena.values(c))]).toEqual([1, 2, 3, 4, 5, 6]);
  arena.launch('matmul', { ins: [...ins, arena.put([3], 'f32', Float32Array.of(7, 8, 9))], outs: [c] }, [0, 0, 1]);
  expect([...(await arena.values(c))]).toEqual([7, 8, 9, 7, 8, 9]);
  arena.launch('matmul', { ins, outs: [c] }, [0, 0, 1]);
  expect([...(await arena.values(c))]).toEqual([0, 0, 0, 0, 0, 0]);
});

test('shapes that do not fit are refused before anything runs', () => {
  arena.reset();
  const a = arena.region([4, 5]);
  expect(() => arena.launch('matmul', { ins: [a, arena.region([4, 6])], outs: [arena.region([4, 6])] }, [0, 0, 1])).toThrow(/matmul: a \[4, 5\], b \[4, 6\], c \[4, 6\] do not fit/);
  expect(() => arena.launch('weight_grad', { ins: [a, arena.region([4, 6])], outs: [arena.region([3, 6])] }, [3])).toThrow(/weight_grad: .* at row 3 do not fit/);
});
