// f16 weights are storage: every kernel that reads one gives the bits of casting it to f32 first, in bounded scratch.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Random } from '@lomo/tensor';
import type { DType, Region } from '@lomo/tensor';
import { cpu } from '../src/index.ts';
import { Arena, draw, oneDnn } from './arena.ts';

let arenas: readonly Arena[] = [];
beforeAll(() => {
  arenas = [1, 2].map((threads) => new Arena(cpu({ threads, ...oneDnn }), 128 << 20));
});
afterAll(async () => {
  for (const { backend } of arenas) await backend[Symbol.asyncDispose]();
});

/** A weight in f16 and the same one cast to f32 on the device. */
function weight(arena: Arena, shape: readonly number[], data: Uint16Array): readonly [half: Region, whole: Region] {
  const [half, whole] = [arena.put(shape, 'f16', data), arena.region(shape)];
  arena.launch('cast', { ins: [half], outs: [whole] });
  return [half, whole];
}

/** Normal f16 from 2^-7 to 2, of either sign; these tests draw millions. */
function halves(random: Random, n: number): Uint16Array {
  let state = random.int(1, 0x7fffffff);
  const data = new Uint16Array(n);
  for (let i = 0; i < n; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    data[i] = (state & 0x83ff) | ((8 + ((state >>> 16) & 7)) << 10);
  }
  return data;
}
const f32 = (random: Random, n: number): Float32Array => draw(random, n, 'f32').data as Float32Array;

interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly ta?: number;
  readonly tb: number;
  readonly alpha?: number;
  readonly form: 'plain' | 'bias' | 'add';
}

/** Where the bits of the two ways differ; every thread count is compared with the first. */
async function differences(random: Random, { m, n, k, ta = 0, tb, alpha = 1, form }: Product): Promise<string[]> {
  const [x, w, b, old] = [f32(random, m * k), halves(random, n * k), halves(random, n), f32(random, m * n)];
  const found: string[] = [];
  let first: Buffer | null = null;
  for (const arena of arenas) {
    arena.reset();
    const a = arena.put(ta ? [k, m] : [m, k], 'f32', x);
    const [half, whole] = weight(arena, tb ? [n, k] : [k, n], w);
    const [halfBias, wholeBias] = weight(arena, [n], b);
    const c = arena.region([m, n]);
    const results: Buffer[] = [];
    for (const [v, bias] of [[half, halfBias], [whole, wholeBias]] as const) {
      arena.backend.write(c, old);
      if (form === 'add') arena.launch('matmul_add', { ins: [a, v], inouts: [c] }, [ta, tb, alpha]);
      else arena.launch('matmul', { ins: form === 'bias' ? [a, v, bias] : [a, v], outs: [c] }, [ta, tb, alpha]);
      results.push(await arena.bytes(c));
    }
    first ??= results[0]!;
    const what = `m ${m} n ${n} k ${k} ta ${ta} tb ${tb} alpha ${alpha} ${form}, ${arena.backend.threads} threads`;
    if (!results[0]!.equals(results[1]!)) found.push(`${what}: not the bits of the cast weight`);
    // A transposed `a` and alpha together (no layer has either) differ between thread counts in f32 too.
    if ((ta === 0 || alpha === 1) && !results[0]!.equals(first)) found.push(`${what}: not those of one thread`);
  }
  return found;
}

test.each([1, 2, 3])('products of any shape have the bits of the weight cast first, seed %i', async (seed) => {
  const random = new Random(700 + seed);
  const differing: string[] = [];
  for (let round = 0; round < 25; round++) {
    const size = () => random.pick([1, 2, 7, 16, 17, 64, 65, 100, 256, 384, 700]);
    const product = { m: size(), n: size(), k: size(), ta: random.int(0, 1), tb: random.int(0, 1), alpha: random.pick([1, 1, 0.5]), form: random.pick<Product['form']>(['plain', 'bias', 'add']) };
    differing.push(...(await differences(random, product)));
  }
  expect(differing).toEqual([]);
});

test('a weight too large for the scratch passes in panels, with the same bits', async () => {
  const random = new Random(4);
  const large: readonly Product[] = [
    { m: 64, n: 4801, k: 1031, tb: 1, form: 'bias' },
    { m: 96, n: 2049, k: 2100, tb: 0, form: 'add' },
    { m: 1, n: 32000, k: 150, tb: 1, form: 'plain' },
    { m: 512, n: 9000, k: 500, tb: 1, form: 'plain' },
    { m: 7, n: 150, k: 65000, tb: 0, form: 'plain' },
  ];
  const differing: string[] = [];
  for (const product of large) differing.push(...(await differences(random, product)));
  expect(differing).toEqual([]);
});

test('no launch asks for more scratch than the bound, however large the weight', () => {
  const arena = arenas[1]!;
  const region = (shape: readonly number[], dtype: DType): Region => ({ memory: arena.memory, offset: 0, shape, dtype });
  const scratch = (m: number, n: number, k: number, tb: number): number => {
    const operands = { ins: [region([m, k], 'f32'), region(tb ? [n, k] : [k, n], 'f16')], inouts: [], outs: [region([m, n], 'f32')] };
    const kernel = arena.backend.kernel('matmul', { ins: ['f32', 'f16'], inouts: [], outs: ['f32'] })!;
    return arena.backend.workspace(kernel, { ...operands, workspace: null }, [0, tb, 1]);
  };
  // The largest of 7B, 172 MiB in f32: 16 MiB, and room for oneDNN's own. A head of 128,256 words, 2 GiB, makes no panel over 64 MiB.
  for (const [m, n, k, tb] of [[1024, 11008, 4096, 1], [1024, 4096, 11008, 1], [1024, 4096, 11008, 0], [512, 128_256, 4096, 1]] as const) {
    expect(scratch(m, n, k, tb)).toBeLessThanOrEqual(18 << 20);
  }
  expect(scratch(512, 4096, 128_256, 0)).toBeLessThanOrEqual(64 << 20);
});

test('shapes that do not fit are refused, in panels too', () => {
  const arena = arenas[0]!;
  arena.reset();
  const launch = (x: readonly number[], w: readonly number[], c: readonly number[], bias?: number) => () => {
    const ins = [arena.region(x), arena.region(w, 'f16'), ...(bias === undefined ? [] : [arena.region([bias], 'f16')])];
    arena.launch('matmul', { ins, outs: [arena.region(c)] }, [0, 1, 1]);
    arena.reset();
  };
  expect(launch([4, 5], [6, 4], [4, 6])).toThrow(/do not fit together/);
  expect(launch([4, 5], [6, 5], [4, 7])).toThrow(/do not fit together/);
  expect(launch([4, 5], [6, 5], [4, 6], 7)).toThrow(/do not fit together/);
  expect(launch([4, 1000], [5000, 1000], [4, 5001])).toThrow(/do not fit together/);
  expect(launch([4, 1001], [5000, 1000], [4, 5000])).toThrow(/do not fit together/);
});

test('norms have the bits of the weight cast first', async () => {
  const random = new Random(9);
  for (const arena of arenas) {
    for (const [rows, h] of [[1, 1], [5, 17], [64, 100], [515, 288]] as const) {
      arena.reset();
      const x = arena.put([rows, h], 'f32', f32(random, rows * h));
      const dy = arena.put([rows, h], 'f32', f32(random, rows * h));
      const both = weight(arena, [h], halves(random, h));
      const results: Buffer[] = [];
      for (const w of both) {
        const [y, rstd, dx] = [arena.region([rows, h]), arena.region([rows]), arena.region([rows, h])];
        const sums = arena.put([2, h], 'f32', new Float32Array(2 * h));
        arena.launch('rms_norm', { ins: [x, w], outs: [y, rstd] }, [1e-5]);
        arena.launch('rms_norm_backward', { ins: [x, w, rstd, dy], inouts: [sums], outs: [dx] }, [500]);
        results.push(Buffer.concat([await arena.bytes(y), await arena.bytes(rstd), await arena.bytes(dx), await arena.bytes(sums)]));
      }
      expect(results[0]!.equals(results[1]!)).toBe(true);
    }
  }
});

test('an embedding gives every f16 there is as the f32 it is', async () => {
  const arena = arenas[1]!;
  arena.reset();
  const table = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const ids = Int32Array.from({ length: 2048 }, (_, i) => (i * 37) % 2048);
  const [half, whole] = weight(arena, [2048, 32], table);
  const [y, wanted] = [arena.region([2048, 32]), arena.region([2048, 32])];
  const at = arena.put([2048], 'i32', ids);
  arena.launch('embedding', { ins: [at, half], outs: [y] });
  arena.launch('embedding', { ins: [at, whole], outs: [wanted] });
  expect((await arena.bytes(y)).equals(await arena.bytes(wanted))).toBe(true);
  expect(arena.backend.kernel('embedding', { ins: ['i32', 'f16'], inouts: [], outs: ['f16'] })).toBeNull();
});
