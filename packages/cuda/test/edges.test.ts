// The shapes of edges.ts against the definitions, under three orders of a block's threads; and ids and targets at the first number that is none.
import { isLomoError } from '@lomo/tensor';
import type { DType, Region } from '@lomo/tensor';
import { registerConformance } from '@lomo/tensor/conformance';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { double } from './double.ts';
import { edgeOps as ops } from './edges.ts';

describe.each(['0', '1', '20'])('schedule %s', (schedule) => {
  beforeEach(() => {
    process.env['LOMO_DOUBLE_SEED'] = schedule;
  });
  afterEach(() => {
    delete process.env['LOMO_DOUBLE_SEED'];
  });
  registerConformance(test, { backend: () => double(), ops, cases: 2, seed: 7 + Number(schedule) });
});

test('embedding, cross_entropy and cache_write: the first number outside is refused, the last inside is not', async () => {
  const outcome = async (name: string, operands: { readonly ins: readonly Part[]; readonly inouts?: readonly Part[]; readonly outs?: readonly Part[] }, attributes: readonly number[]): Promise<string> => {
    await using backend = double();
    const memory = backend.memory('device', 1 << 14);
    let offset = 0;
    const place = (parts: readonly Part[] = []): Region[] => parts.map(({ shape, dtype, values }) => {
      const region = { memory, offset, shape, dtype };
      offset += 1024;
      if (values !== undefined) backend.write(region, dtype === 'i32' ? Int32Array.from(values) : Float32Array.from(values));
      return region;
    });
    const regions = { ins: place(operands.ins), inouts: place(operands.inouts), outs: place(operands.outs) };
    const types = (list: readonly Region[]): DType[] => list.map((r) => r.dtype);
    const kernel = backend.kernel(name, { ins: types(regions.ins), inouts: types(regions.inouts), outs: types(regions.outs) })!;
    backend.launch(kernel, { ...regions, workspace: null }, attributes, 'compute');
    try {
      await backend.read(regions.ins[0]!);
      return 'held';
    } catch (error) {
      if (isLomoError(error)) return error.code;
      throw error;
    }
  };
  const table: Part = { shape: [5, 4], dtype: 'f32', values: Array<number>(20).fill(1) };
  for (const [id, want] of [[4, 'held'], [5, 'BadId'], [0, 'held'], [-1, 'BadId']] as const) {
    expect(await outcome('embedding', { ins: [{ shape: [1], dtype: 'i32', values: [id] }, table], outs: [{ shape: [1, 4], dtype: 'f32' }] }, []), `id ${id}`).toBe(want);
  }
  const scalars: Part = { shape: [8], dtype: 'f32', values: [0, 1, 1, 1, 0, 0, 0, 0] };
  for (const [target, want] of [[4, 'held'], [5, 'BadId'], [-100, 'held']] as const) {
    const logits: Part = { shape: [1, 5], dtype: 'f32', values: [1, 2, 3, 4, 5] };
    expect(await outcome('cross_entropy', { ins: [{ shape: [1], dtype: 'i32', values: [target] }, scalars], inouts: [logits], outs: [{ shape: [1], dtype: 'f32' }, { shape: [1], dtype: 'f32' }] }, [1]), `target ${target}`).toBe(want);
  }
  for (const [start, want] of [[2, 'held'], [3, 'CacheFull'], [-1, 'CacheFull']] as const) {
    const rows: Part = { shape: [3, 4], dtype: 'f32', values: Array<number>(12).fill(1) };
    expect(await outcome('cache_write', { ins: [rows, { shape: [1], dtype: 'i32', values: [start] }], inouts: [table] }, []), `from row ${start}`).toBe(want);
  }
});

interface Part {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly values?: readonly number[];
}
