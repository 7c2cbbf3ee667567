// Telemetry's sums in the update kernels: the bits of the weights are those without, the sums those of the definition, whatever the threads and tiles.
import { decode, encode, numel, Random } from '@lomo/tensor';
import type { DType, Region } from '@lomo/tensor';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cpu } from '../src/index.ts';
import { Arena } from './arena.ts';

let arenas: readonly Arena[] = [];
beforeAll(() => {
  arenas = [1, 2, 4].map((threads) => new Arena(cpu({ threads }), 48 << 20));
});
afterAll(async () => {
  for (const { backend } of arenas) await backend[Symbol.asyncDispose]();
});

const shapes = [[1, 1], [7, 33], [150, 290], [3, 1024], [1, 5000]] as const;
const kernels = ['lomo_update', 'adamw_update', 'adalomo_update', 'adalomo_vector_update'] as const;
const lossScale = 4;

interface Inputs {
  readonly shape: readonly [rows: number, k: number];
  readonly p: Float64Array;
  readonly g: Float64Array;
  readonly second: Float64Array;
}

/** Values of which some weights are tiny, so that 16 bits lose some movements and keep others; one element in eight has no gradient. */
function drawn(seed: number, shape: readonly [number, number], dtype: DType): Inputs {
  const random = new Random(seed);
  const n = numel(shape);
  const sizes = random.normal(n);
  const p = decode(dtype, encode(dtype, random.normal(n).map((x, i) => x * (sizes[i]! > 0 ? 1 : 1e-3))));
  const g = random.normal(n).map((x) => (random.int(0, 7) === 0 ? 0 : x));
  return { shape, p, g, second: random.normal(n).map((x) => 0.1 + x * x) };
}

interface Made {
  readonly p: Region;
  readonly sums: Region | null;
}

/** Enqueues one update of rows [from, to), in the arena's memory; element 0 of the parameter is element 3 of the random stream. */
function launch(arena: Arena, kernel: (typeof kernels)[number], inputs: Inputs, options: { readonly dtype: DType; readonly rounding: number; readonly measured: boolean; readonly tile?: number }): Made {
  const { dtype, rounding, measured } = options;
  const [rows, k] = inputs.shape;
  const f32 = (shape: readonly number[], values: ArrayLike<number>): Region => arena.put(shape, 'f32', Float32Array.from(values));
  arena.reset();
  const p = arena.put(inputs.shape, dtype, encode(dtype, inputs.p));
  const g = f32(inputs.shape, inputs.g.map((x) => x * lossScale));
  const sums = measured ? f32([rows, 8], new Float32Array(rows * 8).fill(7)) : null;
  const scalars = f32([8], [0.01, 1, 0.5, lossScale, 0, 0, 0, 0]);
  const counters = arena.put([8], 'i32', Int32Array.of(3, 17, 0, 0, 0, 0, 0, 0));
  const [m, v] = [f32(inputs.shape, inputs.second.map((x) => x - 1)), f32(inputs.shape, inputs.second)];
  const [r, c, mean] = [f32([rows], inputs.second.subarray(0, rows)), f32([k], inputs.second.subarray(0, k)), f32([1], [1])];
  const squares = f32([rows], inputs.second.subarray(0, rows));
  const size = dtype === 'f32' ? 4 : 2;
  const height = options.tile ?? rows;
  for (let row = 0; row < rows; row += height) {
    const count = Math.min(height, rows - row);
    const part = (t: Region, bytes: number, shape = [count, k]): Region => ({ ...t, offset: t.offset + row * bytes, shape });
    const [pt, gt] = [part(p, k * size), part(g, 4 * k)];
    const outs = sums === null ? [] : [part(sums, 32, [count, 8])];
    const common = [9, 3 + row * k, 4, 0.1, 0.5, rounding];
    const flat = (t: Region): Region => ({ ...t, shape: [count * k] });
    if (kernel === 'lomo_update') arena.launch(kernel, { ins: [gt, scalars], inouts: [pt, counters], outs }, [...common, 1]);
    else if (kernel === 'adamw_update') arena.launch(kernel, { ins: [gt, scalars], inouts: [pt, part(m, 4 * k), part(v, 4 * k), counters], outs }, [...common, 1, 0.9, 0.999, 1e-8]);
    else if (kernel === 'adalomo_update') arena.launch(kernel, { ins: [gt, part(r, 4, [count]), c, mean, squares, squares, scalars], inouts: [pt, counters], outs }, [...common, 1e-3, 1, rows * k]);
    else arena.launch(kernel, { ins: [flat(gt), flat(part(v, 4 * k)), squares, squares, scalars], inouts: [flat(pt), counters], outs }, [...common, 1e-3, 1, rows * k]);
  }
  return { p, sums };
}

/** The sums of one row by their definition, in double. */
function expected(row: readonly (readonly [before: number, next: number, stored: number, g: number])[]): number[] {
  const total = new Array<number>(8).fill(0);
  for (const [before, next, stored, g] of row) {
    const [a, d, error] = [stored - before, next - before, stored - next];
    [Object.is(stored, before) ? 0 : 1, Math.abs(d), a * Math.sign(d), error ** 2, d ** 2, a ** 2, before ** 2, g ** 2].forEach((x, c) => (total[c]! += x));
  }
  return total;
}

describe.each(kernels)('%s', (kernel) => {
  // The kernel of vectors knows one row.
  const fitting = shapes.filter(([rows]) => kernel !== 'adalomo_vector_update' || rows === 1);

  test.each(['f32', 'bf16', 'f16'] as const)('%s: same weights, the sums of the definition', async (dtype) => {
    const arena = arenas[1]!;
    for (const [at, shape] of fitting.entries()) for (const rounding of [0, 1]) {
      const inputs = drawn(at, shape, dtype);
      const plain = launch(arena, kernel, inputs, { dtype, rounding, measured: false });
      const bits = await arena.bytes(plain.p);
      // In f32 the kernel stores what it computed: the movement that was meant.
      const next = await arena.values(launch(arena, kernel, inputs, { dtype: 'f32', rounding: 0, measured: false }).p);
      const made = launch(arena, kernel, inputs, { dtype, rounding, measured: true });
      expect((await arena.bytes(made.p)).equals(bits), `${String(shape)}: weights`).toBe(true);
      const stored = decode(dtype, dtype === 'f32' ? new Float32Array(bits.buffer, bits.byteOffset, numel(shape)) : new Uint16Array(bits.buffer, bits.byteOffset, numel(shape)));
      const sums = await arena.values(made.sums!);
      const [rows, k] = shape;
      const wrong: string[] = [];
      for (let r = 0; r < rows; r++) {
        const want = expected(Array.from({ length: k }, (_, j) => r * k + j).map((i) => [inputs.p[i]!, next[i]!, stored[i]!, Math.fround(inputs.g[i]!)] as const));
        want.forEach((x, c) => {
          // Movements are differences of f32 numbers near the weights; sums of f32 terms in 16 lanes.
          const bar = c === 0 ? 0 : 4e-6 * Math.max(Math.abs(x), c === 2 ? want[1]! : 0);
          if (!(Math.abs(sums[8 * r + c]! - x) <= bar)) wrong.push(`row ${r} column ${c}: ${sums[8 * r + c]} for ${x}`);
        });
      }
      expect(wrong, `${String(shape)} rounding ${rounding}`).toEqual([]);
    }
  });

  test('the same bits over threads and tiles', async () => {
    const differing: string[] = [];
    for (const [at, shape] of fitting.entries()) for (const dtype of ['f32', 'bf16', 'f16'] as const) for (const rounding of [0, 1]) {
      const inputs = drawn(100 + at, shape, dtype);
      let first: Buffer | null = null;
      for (const arena of arenas) for (const tile of [shape[0], 128, 64, 7]) {
        const made = launch(arena, kernel, inputs, { dtype, rounding, measured: true, tile });
        const bits = Buffer.concat([await arena.bytes(made.p), await arena.bytes(made.sums!)]);
        first ??= bits;
        if (!bits.equals(first)) differing.push(`${String(shape)} ${dtype} rounding ${rounding} tile ${tile} threads ${arena.backend.threads}`);
      }
    }
    expect(differing).toEqual([]);
  });
});

test('a closed gate leaves weights and sums as they were', async () => {
  const arena = arenas[1]!;
  const inputs = drawn(1, [7, 33], 'bf16');
  inputs.g[40] = NaN;
  const made = launch(arena, 'lomo_update', inputs, { dtype: 'bf16', rounding: 1, measured: true });
  expect([...(await arena.values(made.p))]).toEqual([...inputs.p]);
  expect(new Set(await arena.values(made.sums!))).toEqual(new Set([7]));
});

test('sums of another shape are refused by name', () => {
  const arena = arenas[0]!;
  arena.reset();
  const [g, p, scalars] = [arena.region([2, 3]), arena.region([2, 3]), arena.put([8], 'f32', Float32Array.of(1, 1, 1, 1, 0, 0, 0, 0))];
  const counters = arena.put([8], 'i32', new Int32Array(8));
  const failing = new Arena(cpu({ threads: 1, debug: 'sync' }), 1 << 16);
  const move = (t: Region): Region => ({ ...t, memory: failing.memory });
  expect(() => failing.launch('lomo_update', { ins: [g, scalars].map(move), inouts: [p, counters].map(move), outs: [move(arena.region([3, 8]))] }, [0, 0, 0, 0, 0, 0, 0])).toThrow(/lomo_update: sums has 24 elements/);
});

test('movements that no 16-bit number shows are counted as not applied', async () => {
  const arena = arenas[0]!;
  const n = 64;
  // Decay and gradient together are a small part of a unit of bf16 above 1: to nearest nothing moves.
  const inputs: Inputs = { shape: [1, n], p: new Float64Array(n).fill(1), g: new Float64Array(n).fill(-(2 ** -7) / 1000 / 0.005), second: new Float64Array(n).fill(1) };
  const { sums } = launch(arena, 'lomo_update', inputs, { dtype: 'bf16', rounding: 0, measured: true });
  const [changed, intended, applied] = await arena.values(sums!);
  expect([changed, applied]).toEqual([0, 0]);
  expect(intended).toBeGreaterThan(0);
});
