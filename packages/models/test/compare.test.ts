// Tensors compared: counts and differences that are known beforehand, over slices, types and numbers that are none.
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareTensors, convert, numbersOf, openCheckpoint, writeShards } from '../src/index.ts';
import type { DiskType, TensorComparison, TensorSource } from '../src/index.ts';
import { temporary } from './folders.ts';

type Numbers = readonly number[] | Float32Array;

function f32(name: string, values: Numbers, shape: readonly number[] = [values.length]): TensorSource {
  const array = Float32Array.from(values);
  return { name, shape, dtype: 'F32', slices: () => [new Uint8Array(array.buffer)] };
}

function as(dtype: 'BF16' | 'F16', source: TensorSource): TensorSource {
  return { ...source, dtype, slices: () => [...(source.slices() as Iterable<Uint8Array>)].map((bytes) => convert(bytes, 'F32', dtype)) };
}

function raw(name: string, dtype: DiskType, array: ArrayBufferView & { readonly length: number }): TensorSource {
  return { name, shape: [array.length], dtype, slices: () => [new Uint8Array(array.buffer, array.byteOffset, array.byteLength)] };
}

async function compared(a: readonly TensorSource[], b: readonly TensorSource[]): Promise<Record<string, TensorComparison>> {
  const root = await temporary();
  const { mkdir } = await import('node:fs/promises');
  const [left, right] = [join(root, 'a'), join(root, 'b')];
  for (const [folder, sources] of [[left, a], [right, b]] as const) {
    await mkdir(folder);
    await writeShards(folder, sources);
  }
  await using first = await openCheckpoint(left);
  await using second = await openCheckpoint(right);
  const found: Record<string, TensorComparison> = {};
  for await (const one of compareTensors(first.tensors, second.tensors)) found[one.name] = one;
  return found;
}

describe('compareTensors', () => {
  it('tells equal, different, missing, extra and other shapes', async () => {
    const found = await compared([f32('same', [1, 2]), f32('moved', [1, -2, 4, 0]), f32('gone', [1]), f32('shape', [1, 2, 3, 4], [2, 2])], [f32('shape', [1, 2, 3, 4], [4]), f32('moved', [1, 2, 3, 0]), f32('same', [1, 2]), f32('new', [1, 2, 3])]);
    expect(Object.keys(found)).toEqual(['same', 'moved', 'gone', 'shape', 'new']);
    expect(found['same']).toMatchObject({ kind: 'equal', elements: 2, changed: 0, maxAbsolute: 0 });
    expect(found['moved']).toMatchObject({ kind: 'different', elements: 4, changed: 2, maxAbsolute: 4, maxRelative: 2, unordered: 0, squares: 21, changeSquares: 17 });
    expect(found['gone']).toMatchObject({ kind: 'missing', b: null, elements: 1 });
    expect(found['new']).toMatchObject({ kind: 'extra', a: null, elements: 3 });
    expect(found['shape']).toMatchObject({ kind: 'shape', a: { shape: [2, 2] }, b: { shape: [4] } });
  });

  it('compares types as numbers: a rounded tensor differs by its rounding, an exact one by its type alone', async () => {
    const exact = f32('exact', [1, 2, -0.5, 0]);
    const fine = f32('fine', [1, 1 + 2 ** -10, 3]);
    const found = await compared([exact, fine, f32('half', [1, 0.1])], [as('BF16', exact), as('BF16', fine), as('F16', f32('half', [1, 0.1]))]);
    expect(found['exact']).toMatchObject({ kind: 'different', changed: 0, maxAbsolute: 0, a: { dtype: 'F32' }, b: { dtype: 'BF16' } });
    expect(found['fine']).toMatchObject({ changed: 1, maxAbsolute: 2 ** -10 });
    expect(found['half']).toMatchObject({ changed: 1 });
    expect(found['half']!.maxRelative).toBeLessThan(2 ** -11);
  });

  it('counts what is infinite or no number apart, and equal ones as equal', async () => {
    const found = await compared([f32('x', [NaN, Infinity, 1, -Infinity, 2])], [f32('x', [NaN, Infinity, Infinity, 1, 3])]);
    expect(found['x']).toMatchObject({ changed: 3, unordered: 2, maxAbsolute: 1, squares: 4 });
    const zero = await compared([f32('x', [0, 1])], [f32('x', [-0, 1])]);
    expect(zero['x']).toMatchObject({ kind: 'different', changed: 1, maxAbsolute: 0 });
  });

  it('works over slices, wherever the difference lies', async () => {
    const size = 2 ** 20 + 77;
    const base = Float32Array.from({ length: size }, (_, i) => (i % 7) - 3);
    const squares = base.reduce((n, v) => n + v * v, 0);
    for (const at of [0, 2 ** 19 - 1, 2 ** 19, 2 ** 20 - 1, size - 1]) {
      const other = base.slice();
      other[at]! += 10;
      const found = await compared([f32('x', base)], [f32('x', other)]);
      expect(found['x'], String(at)).toMatchObject({ kind: 'different', changed: 1, maxAbsolute: 10, squares, changeSquares: 100 });
    }
  });

  it('agrees with a loop over plain numbers', async () => {
    const value = fc.oneof(fc.float({ noDefaultInfinity: true, noNaN: true, min: -1000, max: 1000 }), fc.constantFrom(0, 1, -1));
    await fc.assert(fc.asyncProperty(fc.array(fc.tuple(value, value, fc.boolean()), { minLength: 1, maxLength: 50 }), async (pairs) => {
      const a = pairs.map(([x]) => x);
      const b = pairs.map(([x, y, same]) => (same ? x : y));
      const { x } = await compared([f32('x', a)], [f32('x', b)]);
      const changes = a.map((v, i) => Math.abs(b[i]! - v));
      expect(x!.maxAbsolute).toBe(Math.max(...changes));
      expect(x!.changed).toBe(a.filter((v, i) => !Object.is(v, b[i])).length);
      expect(x!.kind).toBe(x!.changed === 0 ? 'equal' : 'different');
    }), { numRuns: 40 });
  });
});

it('reads every type as numbers', async () => {
  const found = await compared([raw('i64', 'I64', BigInt64Array.of(1n, -5n)), raw('u8', 'U8', Uint8Array.of(1, 255)), raw('f64', 'F64', Float64Array.of(0.1)), raw('bool', 'BOOL', Uint8Array.of(0, 1)), raw('i16', 'I16', Int16Array.of(-3))], [raw('i64', 'I64', BigInt64Array.of(1n, 5n)), raw('u8', 'I32', Int32Array.of(1, 250)), raw('f64', 'F32', Float32Array.of(0.1)), raw('bool', 'BOOL', Uint8Array.of(1, 1)), raw('i16', 'U16', Uint16Array.of(3))]);
  expect(found['i64']).toMatchObject({ changed: 1, maxAbsolute: 10, maxRelative: 2 });
  expect(found['u8']).toMatchObject({ changed: 1, maxAbsolute: 5 });
  expect(found['f64']!.maxAbsolute).toBe(Math.abs(0.1 - Math.fround(0.1)));
  expect(found['bool']).toMatchObject({ changed: 1, maxAbsolute: 1 });
  expect(found['i16']).toMatchObject({ maxAbsolute: 6 });
  expect([...numbersOf(Uint8Array.of(0x38, 0xb8, 0x7e, 0x7f, 0x01, 0x00), 'F8_E4M3')]).toEqual([1, -1, 448, NaN, 2 ** -9, 0]);
  expect([...numbersOf(Uint8Array.of(0x3c, 0xbc, 0x7b, 0x7c, 0x01), 'F8_E5M2')]).toEqual([1, -1, 57344, Infinity, 2 ** -16]);
  expect([...numbersOf(new Uint8Array(BigUint64Array.of(2n ** 60n).buffer), 'U64')]).toEqual([2 ** 60]);
  expect([...numbersOf(new Uint8Array(Int8Array.of(-7).buffer), 'I8')]).toEqual([-7]);
  expect([...numbersOf(new Uint8Array(Uint32Array.of(2 ** 32 - 1).buffer), 'U32')]).toEqual([2 ** 32 - 1]);
});
