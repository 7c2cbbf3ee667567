// embedding_grad_add: an id's sum is one of chunks of tokens, ascending, whoever else is there, however the tokens are split at
// multiples of a chunk, wherever the tile's rows begin; frequent ids too, which many warps add.
import { fromBf16, toBf16 } from '@lomo/tensor';
import type { DType, Region } from '@lomo/tensor';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CudaBackend } from '../src/index.ts';
import { double } from './double.ts';

let backend: CudaBackend;
beforeAll(() => {
  backend = double();
});
afterAll(() => backend[Symbol.asyncDispose]());

const fround = Math.fround;
const draw = (i: number): number => fround((((i * 2654435761) >>> 0) / 2 ** 32 - 0.5) * 3);
const chunk = 1024;
const [tokens, rows, row] = [2 * chunk + 276, 300, 7];
// Two fifths are one id, a tenth another; the others lie anywhere, outside the tile too.
const ids = Int32Array.from({ length: tokens }, (_, t) => (t % 5 < 2 ? 10 : t % 10 === 4 ? 306 : Math.floor(((t * 40503) % 997) / 2.4)));

test.each([
  { dtype: 'f32', h: 5 },
  { dtype: 'bf16', h: 5 },
  { dtype: 'f32', h: 36 },
  { dtype: 'bf16', h: 132 },
] as const)('$dtype rows of $h: the same bits in any split', async ({ dtype, h }) => {
  expect(backend.traits.chunk).toBe(chunk);
  const value = (i: number): number => (dtype === 'f32' ? draw(i) : fromBf16(toBf16(draw(i))));
  const dy = Float32Array.from({ length: tokens * h }, (_, i) => value(i));
  const before = Float32Array.from({ length: rows * h }, (_, i) => draw(3 * i + 1));
  const want = before.slice();
  for (let r = 0; r < rows; r++) {
    for (let from = 0; from < tokens; from += chunk) {
      const mine = Array.from({ length: Math.min(chunk, tokens - from) }, (_, i) => from + i).filter((t) => ids[t] === row + r);
      if (mine.length === 0) continue;
      for (let j = 0; j < h; j++) want[r * h + j] = fround(want[r * h + j]! + mine.slice(1).reduce((sum, t) => fround(sum + dy[t * h + j]!), dy[mine[0]! * h + j]!));
    }
  }
  const size = dtype === 'f32' ? 4 : 2;
  const memory = backend.memory('device', 1 << 21);
  const at = (offset: number, shape: readonly number[], type: DType): Region => ({ memory, offset, shape, dtype: type });
  const [allIds, g] = [at(0, [tokens], 'i32'), at(16384, [rows, h], 'f32')];
  const allDy = at(1 << 18, [tokens, h], dtype);
  backend.write(allIds, ids);
  backend.write(allDy, dtype === 'f32' ? dy : Uint16Array.from(dy, toBf16));
  const kernel = backend.kernel('embedding_grad_add', { ins: ['i32', dtype], inouts: ['f32'], outs: [] })!;
  for (const split of [[tokens], [chunk, chunk + 276], [2 * chunk, 276], [chunk, chunk, 276]]) {
    backend.write(g, before);
    let start = 0;
    for (const count of split) {
      const operands = { ins: [at(4 * start, [count], 'i32'), at(allDy.offset + size * start * h, [count, h], dtype)], inouts: [g], outs: [] };
      const bytes = backend.workspace(kernel, { ...operands, workspace: null }, [row]);
      backend.launch(kernel, { ...operands, workspace: at((1 << 20) + (1 << 19), [bytes], 'u8') }, [row], 'compute');
      start += count;
    }
    expect(Buffer.compare(Buffer.from(await backend.read(g)), Buffer.from(want.buffer))).toBe(0);
  }
  memory.free();
});
