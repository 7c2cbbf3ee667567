// Conversions to 16 bits, and Philox: committed values, properties, and the golden tables where they are at hand.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decode, encode, fromBf16, fromF16, keyOf, philox, Random, toBf16, toF16 } from '../src/index.ts';
import { golden, hasGolden } from './shared.ts';

const kinds = [
  { dtype: 'bf16', to: toBf16, from: fromBf16, infinity: 0x7f80, ulp: 2 ** -8 },
  { dtype: 'f16', to: toF16, from: fromF16, infinity: 0x7c00, ulp: 2 ** -11 },
] as const;

for (const { dtype, to, from, infinity, ulp } of kinds) {
  describe(dtype, () => {
    test('every 16-bit pattern survives the way to a number and back', () => {
      for (let bits = 0; bits < 65536; bits++) {
        const value = from(bits);
        if (Number.isNaN(value)) expect((bits & 0x7fff) > infinity && Number.isNaN(from(to(value)))).toBe(true);
        else if (to(value) !== bits) throw new Error(`${bits} became ${to(value)} by way of ${value}`);
      }
    });

    test('the midpoint of neighbours goes to the even one, everything else to the nearer one', () => {
      fc.assert(
        fc.property(fc.integer({ min: 0, max: infinity - 2 }), (bits) => {
          const [low, high] = [from(bits), from(bits + 1)];
          const middle = (low + high) / 2;
          const step = (high - low) / 64;
          expect(to(middle)).toBe(bits % 2 === 0 ? bits : bits + 1);
          expect(to(middle - step)).toBe(bits);
          expect(to(middle + step)).toBe(bits + 1);
          expect(to(-middle)).toBe((bits % 2 === 0 ? bits : bits + 1) | 0x8000);
        }),
      );
    });

    test('beyond the largest value is infinity; NaN stays NaN', () => {
      const largest = from(infinity - 1);
      expect(to(largest * (1 + ulp / 4))).toBe(infinity - 1);
      expect(to(largest * (1 + ulp))).toBe(infinity);
      expect(to(-Infinity)).toBe(infinity | 0x8000);
      expect(from(to(NaN))).toBeNaN();
    });

    const file = `numbers/${dtype}.json`;
    test.skipIf(!hasGolden(file))(`equals the golden table (skipped where ../shared/golden/${file} is absent)`, () => {
      const pairs = golden<[number, number][]>(file);
      expect(pairs.length).toBeGreaterThanOrEqual(1000);
      const view = new DataView(new ArrayBuffer(4));
      for (const [wide, narrow] of pairs) {
        view.setUint32(0, wide);
        const x = view.getFloat32(0);
        if (Number.isNaN(x)) expect(from(to(x))).toBeNaN();
        else expect(to(x), `float32 ${x}`).toBe(narrow);
      }
    });
  });
}

test('known values', () => {
  expect([1, -2, 3.140625, 2 ** -126, 1.0078125].map(toBf16)).toEqual([0x3f80, 0xc000, 0x4049, 0x0080, 0x3f81]);
  expect([1, -2, 65504, 65520, 2 ** -14, 2 ** -24, 2 ** -25, 3 * 2 ** -25].map(toF16)).toEqual([0x3c00, 0xc000, 0x7bff, 0x7c00, 0x0400, 1, 0, 2]);
});

test('arrays are encoded and decoded element by element', () => {
  expect([...decode('bf16', encode('bf16', [1, 0.1]))]).toEqual([1, 0.10009765625]);
  expect([...decode('i32', encode('i32', [-5, 7]))]).toEqual([-5, 7]);
  expect([...decode('f32', encode('f32', [0.1]))]).toEqual([Math.fround(0.1)]);
});

describe('philox4x32-10', () => {
  // Published with the algorithm (Random123, kat_vectors).
  const published = [
    { key: [0, 0], counter: [0, 0, 0, 0], output: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
    { key: [0xffffffff, 0xffffffff], counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], output: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd] },
    { key: [0xa4093822, 0x299f31d0], counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], output: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1] },
  ] as const;
  test('published vectors', () => {
    for (const { key, counter, output } of published) expect(philox(key, counter)).toEqual(output);
  });

  const file = 'numbers/philox4x32_10.json';
  test.skipIf(!hasGolden(file))(`golden vectors (skipped where ../shared/golden/${file} is absent)`, () => {
    const vectors = golden<{ key: [number, number]; counter: [number, number, number, number]; output: number[] }[]>(file);
    expect(vectors.length).toBeGreaterThan(3);
    for (const { key, counter, output } of vectors) expect(philox(key, counter)).toEqual(output);
  });

  test('keys of paths are FNV-1a', () => {
    expect(keyOf('')).toBe(0x811c9dc5);
    expect(keyOf('a')).toBe(0xe40c292c);
    expect(keyOf('foobar')).toBe(0xbf9cf968);
  });

  test('Random repeats itself, and is normal where it says so', () => {
    const [a, b] = [new Random(7).normal(20_000), new Random(7).normal(20_000)];
    expect(a).toEqual(b);
    const mean = a.reduce((x, y) => x + y, 0) / a.length;
    const square = a.reduce((x, y) => x + y * y, 0) / a.length;
    expect(Math.abs(mean)).toBeLessThan(4 / Math.sqrt(a.length));
    expect(Math.abs(square - 1)).toBeLessThan(4 * Math.sqrt(2 / a.length));
  });
});
