// Bits of lomo_update that are the CPU's by formula: f32 with one rounding an operation, the Philox word of the element's global number,
// stochastic rounding; whatever the row tile and wherever it lies in memory. And sums over tokens that no split changes.
import { philox, toBf16, fromBf16 } from '@lomo/tensor';
import type { DType, Region } from '@lomo/tensor';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CudaBackend } from '../src/index.ts';
import { double } from './double.ts';

let backend: CudaBackend;
beforeAll(() => {
  backend = double();
});
afterAll(() => backend[Symbol.asyncDispose]());

const fround = Math.fround;
const [lr, decay, key, seedLow, seedHigh, step] = [0.01, 0.1, 0x1234567, 99, 7, 3];
const [rows, columns] = [13, 37];
const n = rows * columns;
const draw = (i: number): number => fround((((i * 2654435761) >>> 0) / 2 ** 32 - 0.5) * 3);
const g = Float32Array.from({ length: n }, (_, i) => draw(i + 7));
const p = Uint16Array.from({ length: n }, (_, i) => toBf16(draw(3 * i + 1)));

function expected(i: number, lossScale: number): number {
  const keep = fround(1 - fround(lr) * decay);
  const next = fround(fround(fromBf16(p[i]!) * keep) - fround(fround(fround(g[i]! / lossScale) * 0.5) * fround(lr)));
  const word = philox([seedLow, (seedHigh ^ key) >>> 0], [Math.floor(i / 4), 0, step, 0])[i % 4]!;
  const bits = new Uint32Array(Float32Array.of(next).buffer)[0]!;
  return ((bits + (word & 0xffff)) >>> 16) & 0xffff;
}

test.each([4, 3])('lomo_update with stochastic rounding, loss scale %d: the same bits in tiles of any rows, at any alignment', async (lossScale) => {
  const want = Uint16Array.from({ length: n }, (_, i) => expected(i, lossScale));
  const memory = backend.memory('device', 1 << 16);
  const at = (offset: number, shape: readonly number[], dtype: DType): Region => ({ memory, offset, shape, dtype });
  const [scalars, counters] = [at(0, [8], 'f32'), at(256, [8], 'i32')];
  backend.write(scalars, Float32Array.of(lr, 1, 0.5, lossScale, 0, 0, 0, 0));
  backend.write(counters, Int32Array.of(step, seedLow, seedHigh, 0, 0, 0, 0, 0));
  const kernel = backend.kernel('lomo_update', { ins: ['f32', 'f32'], inouts: ['bf16', 'i32'], outs: [] })!;
  for (const tile of [1, 4, 5, 13]) {
    for (const shift of [0, 2, 8]) {
      const [wholeG, wholeP] = [at(1024 + 2 * shift, [rows, columns], 'f32'), at(8192 + shift, [rows, columns], 'bf16')];
      backend.write(wholeG, g);
      backend.write(wholeP, p);
      for (let row = 0; row < rows; row += tile) {
        const shape = [Math.min(tile, rows - row), columns];
        const ins = [{ ...wholeG, offset: wholeG.offset + 4 * row * columns, shape }, scalars];
        const inouts = [{ ...wholeP, offset: wholeP.offset + 2 * row * columns, shape }, counters];
        backend.launch(kernel, { ins, inouts, outs: [], workspace: null }, [key, row * columns, 0, decay, 0, 1, 1], 'compute');
      }
      expect(new Uint16Array(await backend.read(wholeP))).toEqual(want);
    }
  }
  memory.free();
});

test('token_sum: any split into launches gives the same bits, in f32 and the backend\'s chunks', async () => {
  const { chunk } = backend.traits;
  const [tokens, width] = [2 * chunk + 276, 5];
  const x = Float32Array.from({ length: tokens * width }, (_, i) => draw(i));
  const memory = backend.memory('device', 1 << 17);
  const at = (offset: number, shape: readonly number[]): Region => ({ memory, offset, shape, dtype: 'f32' });
  const [all, sums] = [at(0, [tokens, width]), at(1 << 16, [2, width])];
  const want = new Float32Array(2 * width);
  for (let t = 0; t < tokens; t++) {
    for (let j = 0; j < width; j++) {
      if (t % chunk === 0 && t > 0) [want[j], want[width + j]] = [fround(want[j]! + want[width + j]!), 0];
      want[width + j] = fround(want[width + j]! + x[t * width + j]!);
    }
  }
  backend.write(all, x);
  const kernel = backend.kernel('token_sum', { ins: ['f32'], inouts: ['f32'], outs: [] })!;
  for (const split of [tokens, chunk, 700, 31]) {
    backend.write(sums, new Float32Array(2 * width));
    for (let start = 0; start < tokens; start += split) {
      const operands = { ins: [at(4 * start * width, [Math.min(split, tokens - start), width])], inouts: [sums], outs: [] };
      const bytes = backend.workspace(kernel, { ...operands, workspace: null }, [start]);
      backend.launch(kernel, { ...operands, workspace: { memory, offset: 100_096, shape: [bytes], dtype: 'u8' } }, [start], 'compute');
    }
    expect(new Float32Array(await backend.read(sums))).toEqual(want);
  }
  memory.free();
});

describe('weight_grad', () => {
  /** dyT x in bf16 over `tokens`, in row tiles of `tile`, the tokens in stretches of `split`; bytes of the whole. */
  async function gradient(on: CudaBackend, [tokens, n, k]: readonly [number, number, number], tile: number, split = tokens): Promise<Uint8Array> {
    const sizes = [2 * tokens * n, 2 * tokens * k, 4 * n * k];
    const starts = [0, 1, 2].map((i) => sizes.slice(0, i).reduce((sum, bytes) => sum + Math.ceil(bytes / 256) * 256, 0));
    const end = Math.ceil((starts[2]! + sizes[2]!) / 256) * 256;
    const memory = on.memory('device', end + (5 << 20));
    const at = (offset: number, shape: readonly number[], dtype: DType): Region => ({ memory, offset, shape, dtype });
    on.write(at(starts[0]!, [tokens, n], 'bf16'), Uint16Array.from({ length: tokens * n }, (_, i) => toBf16(draw(i))));
    on.write(at(starts[1]!, [tokens, k], 'bf16'), Uint16Array.from({ length: tokens * k }, (_, i) => toBf16(draw(i + 11))));
    for (let row = 0; row < n; row += tile) {
      const g = at(starts[2]! + 4 * row * k, [Math.min(tile, n - row), k], 'f32');
      for (let t = 0; t < tokens; t += split) {
        const count = Math.min(split, tokens - t);
        const ins = [at(starts[0]! + 2 * t * n, [count, n], 'bf16'), at(starts[1]! + 2 * t * k, [count, k], 'bf16')];
        const operands = { ins, inouts: t > 0 ? [g] : [], outs: t > 0 ? [] : [g] };
        const kernel = on.kernel(t > 0 ? 'weight_grad_add' : 'weight_grad', { ins: ['bf16', 'bf16'], inouts: t > 0 ? ['f32'] : [], outs: t > 0 ? [] : ['f32'] })!;
        const bytes = on.workspace(kernel, { ...operands, workspace: null }, [row]);
        on.launch(kernel, { ...operands, workspace: at(end, [bytes], 'u8') }, [row], 'compute');
      }
    }
    const whole = new Uint8Array(await on.read(at(starts[2]!, [n, k], 'f32')));
    memory.free();
    return whole;
  }

  test('the same bits in tiles of any rows, and for any stretches of whole chunks', async () => {
    const { chunk } = backend.traits;
    for (const k of [24, 27]) {
      const whole = await gradient(backend, [2 * chunk + 40, 40, k], 40);
      for (const [tile, split] of [[1, undefined], [7, undefined], [8, chunk], [13, 2 * chunk], [40, chunk]] as const) expect(await gradient(backend, [2 * chunk + 40, 40, k], tile, split)).toEqual(whole);
    }
  });

  test('the same bits with the row tiles of another GPU\'s cache, and by the formula: chunks in f32, ascending', async () => {
    const { chunk } = backend.traits;
    const size = [chunk + 6, 300, 2048] as const;
    const whole = await gradient(backend, size, 300);
    process.env['LOMO_DOUBLE_CAPABILITY'] = '86'; // 256 rows of 2048 there, all of them on sm_90
    const small = double();
    expect(await gradient(small, size, 300)).toEqual(whole);
    await small[Symbol.asyncDispose]();
    delete process.env['LOMO_DOUBLE_CAPABILITY'];
    const got = new Float32Array(whole.buffer);
    const value = (i: number): number => fromBf16(toBf16(draw(i)));
    for (const [row, column] of [[0, 0], [299, 2047], [137, 5]] as const) {
      let [sum, part] = [0, 0];
      for (let t = 0; t < size[0]; t++) {
        if (t === chunk) [sum, part] = [part, 0];
        part = fround(part + fround(value(t * 300 + row) * value(t * 2048 + column + 11)));
      }
      expect(got[row * 2048 + column]).toBe(fround(sum + part));
    }
  });
});
