// The verbs: memory, copies, writes and reads in order, what is refused, and how a failure spreads.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { hostWindow, isLomoError } from '@lomo/tensor';
import { cpu } from '../src/index.ts';
import type { CpuBackend } from '../src/index.ts';
import { Arena } from './arena.ts';

let backend: CpuBackend;
let arena: Arena;
beforeEach(() => {
  backend = cpu({ threads: 2 });
  arena = new Arena(backend, 64 << 20);
});
afterEach(() => backend[Symbol.asyncDispose]());

function codeOf(verb: () => unknown): string {
  try {
    verb();
  } catch (error) {
    if (isLomoError(error)) return error.code;
    throw error;
  }
  return 'nothing thrown';
}

/** Enough work that what follows is enqueued while it runs. */
function keepBusy(): void {
  const a = arena.region([768, 768]);
  const c = arena.region([768, 768]);
  for (let i = 0; i < 10; i++) arena.launch('matmul', { ins: [a, a], outs: [c] }, [0, 1, 1]);
}

test('memory is zero-filled, counted, aligned and given back', async () => {
  const before = backend.reserved();
  const memory = backend.memory('pinned', 3_000_001);
  expect(backend.reserved() - before).toBe(3_000_001);
  const bytes = new Uint8Array(await backend.read({ memory, offset: 0, shape: [3_000_001], dtype: 'u8' }));
  expect(bytes.every((b) => b === 0)).toBe(true);
  memory.free();
  expect(backend.reserved()).toBe(before);
  expect(codeOf(() => memory.free())).toBe('FreedMemory');
});

test('write, copy and read keep their order behind running work', async () => {
  keepBusy();
  const a = arena.region([4]);
  const b = arena.region([4]);
  const host = Float32Array.of(1, 2, 3, 4);
  backend.write(a, host);
  backend.copy(b, a, 'offload');
  host.fill(9);
  backend.write(a, host);
  expect([...(await arena.values(b))]).toEqual([1, 2, 3, 4]);
  expect([...(await arena.values(a))]).toEqual([9, 9, 9, 9]);
});

test('memory freed behind running work stays until the work is done', async () => {
  const memory = backend.memory('device', 8 << 20);
  const region = { memory, offset: 0, shape: [1024], dtype: 'f32' } as const;
  backend.write(region, new Float32Array(1024).fill(2));
  keepBusy();
  const kept = arena.region([1024]);
  backend.copy(kept, region, 'compute');
  memory.free();
  expect((await arena.values(kept)).every((x) => x === 2)).toBe(true);
});

test('out of memory is an error with the sizes, before anything is taken', () => {
  const before = backend.reserved();
  expect(() => backend.memory('device', 2 ** 50)).toThrow(/1125899906842624 bytes .* allows/);
  expect(codeOf(() => backend.memory('device', 2 ** 50))).toBe('OutOfMemory');
  expect(codeOf(() => backend.memory('device', 0))).toBe('BadSize');
  expect(backend.reserved()).toBe(before);
});

test('regions outside their memory, of another backend or freed are refused', async () => {
  const memory = backend.memory('device', 64);
  const good = { memory, offset: 0, shape: [16], dtype: 'f32' } as const;
  const add = backend.kernel('add', { ins: ['f32', 'f32'], inouts: [], outs: ['f32'] });
  const launch = (outs: readonly (typeof good | { offset: number; shape: readonly number[]; memory: typeof memory; dtype: 'f32' })[]): string =>
    codeOf(() => backend.launch(add!, { ins: [good, good], inouts: [], outs, workspace: null }, [], 'compute'));
  expect(launch([good])).toBe('nothing thrown');
  expect(launch([{ ...good, offset: 4 }])).toBe('OutOfBounds');
  expect(launch([{ ...good, offset: -4 }])).toBe('OutOfBounds');
  expect(launch([{ ...good, shape: [17] }])).toBe('OutOfBounds');
  expect(launch([{ ...good, offset: 2, shape: [4] }])).toBe('Misaligned');
  expect(launch([{ ...good, shape: [2, 2, 2, 2, 1] }])).toBe('BadRank');
  expect(launch([{ ...good, shape: [1.5] }])).toBe('BadShape');
  expect(launch([])).toBe('BadArity');
  expect(codeOf(() => backend.launch(add!, { ins: [good, good], inouts: [], outs: [good], workspace: null }, [1], 'compute'))).toBe('BadArity');
  expect(codeOf(() => backend.launch(add!, { ins: [good, { ...good, dtype: 'i32' }], inouts: [], outs: [good], workspace: null }, [], 'compute'))).toBe('BadDType');
  expect(codeOf(() => backend.write({ ...good, offset: 64 }, new Float32Array(16)))).toBe('OutOfBounds');
  expect(codeOf(() => backend.write(good, new Float32Array(15)))).toBe('SizeMismatch');
  await expect(backend.read({ ...good, shape: [17] })).rejects.toMatchObject({ code: 'OutOfBounds' });
  const other = cpu({ threads: 1 });
  expect(codeOf(() => other.launch(add!, { ins: [good, good], inouts: [], outs: [good], workspace: null }, [], 'compute'))).toBe('BadKernel');
  await other[Symbol.asyncDispose]();
  memory.free();
  expect(launch([good])).toBe('FreedMemory');
});

test('a workspace too small is refused with the size it takes', () => {
  const a = arena.region([256, 300]);
  const c = arena.region([256, 256]);
  const kernel = backend.kernel('matmul', { ins: ['f32', 'f32'], inouts: [], outs: ['bf16'] });
  const operands = { ins: [a, a], inouts: [], outs: [{ ...c, dtype: 'bf16' as const }], workspace: null };
  expect(backend.workspace(kernel!, operands, [0, 1, 1])).toBeGreaterThan(0);
  expect(codeOf(() => backend.launch(kernel!, operands, [0, 1, 1], 'compute'))).toBe('SmallWorkspace');
});

test('kernels are found by name and dtypes; what there is can be listed', () => {
  const kernel = backend.kernel('matmul', { ins: ['bf16', 'bf16'], inouts: [], outs: ['f32'] });
  expect(kernel?.attributes).toEqual(['ta', 'tb', 'alpha']);
  expect(backend.kernel('matmul', { ins: ['f16', 'f16'], inouts: [], outs: ['f16'] })).toBe(null);
  expect(backend.kernel('no_such_op', { ins: [], inouts: [], outs: [] })).toBe(null);
  expect(backend.supported('matmul')).toContain('bf16, bf16 -> f32');
  expect(backend.supported('weight_grad_add')).toEqual(['f32, f32 | f32', 'bf16, bf16 | f32']);
  expect(backend.supported('no_such_op')).toEqual([]);
});

test('the first failing kernel poisons the backend: later work is skipped, reads and launches get its error', async () => {
  const a = arena.put([2], 'f32', Float32Array.of(1, 2));
  const early = backend.read(a);
  keepBusy();
  const ids = arena.put([1], 'i32', Int32Array.of(7));
  const weights = arena.region([5, 4]);
  arena.launch('embedding', { ins: [ids, weights], outs: [arena.region([1, 4])] });
  const late = backend.read(a);
  const launchedBefore = backend.read(ids);
  await expect(late).rejects.toMatchObject({ name: 'LomoError', details: { op: 'embedding', shapes: 'i32[1], f32[5, 4] -> f32[1, 4]' } });
  await expect(late).rejects.toThrow(/embedding: .*7/);
  await expect(launchedBefore).rejects.toThrow(/embedding/);
  expect(new Float32Array(await early)[1]).toBe(2);
  expect(() => arena.launch('add', { ins: [a, a], outs: [a] })).toThrow(/embedding/);
  expect(() => backend.write(a, new Float32Array(2))).toThrow(/embedding/);
});

test("debug: 'sync' throws from the launch that fails or writes a NaN, naming op and shapes", async () => {
  const careful = cpu({ threads: 1, debug: 'sync' });
  const place = new Arena(careful, 1 << 20);
  const a = place.put([2], 'f32', Float32Array.of(Infinity, 1));
  const b = place.put([2], 'f32', Float32Array.of(-Infinity, 1));
  place.launch('mul', { ins: [a, b], outs: [place.region([2])] });
  expect(() => place.launch('add', { ins: [a, b], outs: [place.region([2])] })).toThrow(/^add: .*NaN.*f32\[2\], f32\[2\] -> f32\[2\]/);
  await careful[Symbol.asyncDispose]();
});

test('dispose finishes the work that is queued, settles reads, then refuses everything', async () => {
  const ours = cpu({ threads: 1 });
  const place = new Arena(ours, 32 << 20);
  const a = place.put([512, 512], 'f32', new Float32Array(512 * 512).fill(1));
  const c = place.region([512, 512]);
  for (let i = 0; i < 20; i++) place.launch('matmul', { ins: [a, a], outs: [c] }, [0, 0, 1]);
  const pending = place.values(c);
  await ours[Symbol.asyncDispose]();
  expect((await pending).every((x) => x === 512)).toBe(true);
  await ours[Symbol.asyncDispose]();
  expect(ours.reserved()).toBe(0);
  for (const verb of [() => ours.memory('device', 64), () => ours.kernel('add', { ins: [], inouts: [], outs: [] }), () => ours.write(a, new Float32Array(1))])
    expect(codeOf(verb)).toBe('BackendClosed');
  await expect(ours.read(a)).rejects.toMatchObject({ code: 'BackendClosed' });
});

test('bytes in place are the memory itself, and gone when it is freed', async () => {
  const memory = backend.memory('device', 4096);
  const region = { memory, offset: 256, shape: [2], dtype: 'f32' } as const;
  const bytes = memory.host!(256, 8);
  backend.write(region, Float32Array.of(1.5, -2));
  await backend.read(region);
  expect([...new Float32Array(bytes.buffer, bytes.byteOffset, 2)]).toEqual([1.5, -2]);
  memory.host!(260, 4).set(new Uint8Array(Float32Array.of(7).buffer));
  expect([...new Float32Array(await backend.read(region))]).toEqual([1.5, 7]);
  expect(memory.host!(0, 4096).buffer).toBe(bytes.buffer);
  memory.free();
  expect([bytes.byteLength, bytes.buffer.byteLength]).toEqual([0, 0]);
  // Larger than what is seen in one piece; only what is touched is taken from the machine.
  const large = backend.memory('device', 2 * hostWindow);
  const last = { memory: large, offset: 2 * hostWindow - 4, shape: [1], dtype: 'f32' } as const;
  large.host!(last.offset, 4).set(new Uint8Array(Float32Array.of(3).buffer));
  expect([...new Float32Array(await backend.read(last))]).toEqual([3]);
  large.free();
  const other = cpu({ threads: 1 });
  const held = other.memory('pinned', 64).host!(0, 64);
  await other[Symbol.asyncDispose]();
  expect(held.byteLength).toBe(0);
});
