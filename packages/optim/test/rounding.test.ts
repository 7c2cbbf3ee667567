// Stochastic rounding to 16 bits: exact in expectation, from a thousandth of an ulp to ten, at ties, powers of two and among subnormals.
import fc from 'fast-check';
import { fromBf16, fromF16, keyOf, philox, toBf16, toF16 } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import { lomo, randomWord, roundStochastic } from '../src/index.ts';
import { Given } from './given.ts';

const kinds = [
  { dtype: 'bf16', to: toBf16, from: fromBf16, infinity: 0x7f80, one: 0x3f80, ulp: 2 ** -7, tiny: 2 ** -133, normal: 2 ** -126 },
  { dtype: 'f16', to: toF16, from: fromF16, infinity: 0x7c00, one: 0x3c00, ulp: 2 ** -10, tiny: 2 ** -24, normal: 2 ** -14 },
] as const;

const trials = 4096;
const wordOf = (seed: number, path = 'w'): number => randomWord({ seed: [seed, 0], key: keyOf(path), step: 1, element: 5 });

describe.each(kinds)('$dtype', ({ dtype, to, from, infinity, one, ulp, tiny, normal }) => {
  /** Mean over many seeds against x itself, in standard errors of that mean; the neighbours of x are low and high. */
  const errors = (x: number, [low, high]: readonly [number, number], path: string): number => {
    let sum = 0;
    for (let seed = 0; seed < trials; seed++) {
      const rounded = roundStochastic(x, dtype, wordOf(seed, path));
      if (rounded !== low && rounded !== high) throw new Error(`${x} became ${rounded}, not ${low} or ${high}`);
      sum += (rounded - low) / (high - low);
    }
    const fraction = (x - low) / (high - low);
    return Math.abs(sum / trials - fraction) / Math.sqrt((fraction * (1 - fraction)) / trials);
  };

  const magnitudes = [1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 0.499, 0.9, 0.999, 1.3, 2.7, 5.01, 9.99];
  test.each([['up from 1', 1, 1], ['down from 1.5', 1.5, -1], ['down from -1', -1, -1], ['up from -1.25', -1.25, 1]] as const)('moves of 1e-3 to 10 ulp, %s', (name, start, sign) => {
    for (const m of magnitudes) {
      const moved = start + sign * m * ulp;
      const steps = Math.floor(m);
      const [near, far] = [start + sign * steps * ulp, start + sign * (steps + 1) * ulp];
      expect(errors(moved, [near, far], `${name} ${m}`), `${m} ulp`).toBeLessThan(4);
    }
  });

  test('below a power of two the ulp is half as large, and every power of two behaves alike', () => {
    for (const exponent of [-10, -3, 0, 4, 12]) {
      const power = 2 ** exponent;
      for (const f of [0.01, 0.5, 0.99]) {
        expect(errors(power * (1 + f * ulp), [power, power * (1 + ulp)], `above ${exponent} ${f}`)).toBeLessThan(4);
        expect(errors(power * (1 - (f * ulp) / 2), [power, power * (1 - ulp / 2)], `below ${exponent} ${f}`)).toBeLessThan(4);
      }
    }
  });

  test('ties go either way, as often', () => {
    for (const bits of [one, one + 1, one + 2, one + 77]) {
      const [low, high] = [from(bits), from(bits + 1)];
      expect(errors((low + high) / 2, [low, high], `tie ${bits}`)).toBeLessThan(4);
    }
  });

  test('subnormals, and the step from zero', () => {
    for (const f of [0.02, 0.25, 0.5, 0.98]) for (const k of [0, 1, 5]) {
      expect(errors((k + f) * tiny, [k * tiny, (k + 1) * tiny], `subnormal ${k} ${f}`), `${k} + ${f}`).toBeLessThan(4);
      expect(errors(-(k + f) * tiny, [-k * tiny, -(k + 1) * tiny], `minus ${k} ${f}`), `-(${k} + ${f})`).toBeLessThan(4);
    }
    // The largest subnormal and the least normal number are neighbours.
    expect(errors(normal - 0.3 * tiny, [normal - tiny, normal], 'border')).toBeLessThan(4);
  });

  test('values finer than float32 keep their expectation', () => {
    const fine = 1 + 0.4 * ulp + 2 ** -40;
    expect(Math.fround(fine)).not.toBe(fine);
    expect(errors(fine, [1, 1 + ulp], 'fine')).toBeLessThan(4);
  });

  test('what the dtype holds never moves, whatever the word; infinities and NaN stay', () => {
    for (let bits = 0; bits < infinity; bits++) {
      const x = from(bits);
      for (const word of [0, 1, 0x8000, 0x7fffffff, 0xffffffff]) {
        if (roundStochastic(x, dtype, word) !== x || roundStochastic(-x, dtype, word) !== -x) throw new Error(`${x} moved by word ${word}`);
      }
    }
    expect([Infinity, -Infinity, NaN].map((x) => roundStochastic(x, dtype, 0xffffffff))).toEqual([Infinity, -Infinity, NaN]);
  });

  test('the result is one of the two neighbours, whatever the word', () => {
    const positive = fc.integer({ min: 0, max: infinity - 3 }).chain((bits) => fc.double({ min: from(bits), max: from(bits + 1), noNaN: true }));
    fc.assert(
      fc.property(positive, fc.boolean(), fc.integer({ min: 0, max: 0xffffffff }), (x, minus, word) => {
        const rounded = roundStochastic(minus ? -x : x, dtype, word);
        const magnitude = Math.abs(rounded);
        expect(from(to(magnitude))).toBe(magnitude);
        const bits = to(x);
        const low = from(bits) > x ? from(bits - 1) : from(bits);
        expect(magnitude === low || (magnitude > x && magnitude === from(to(low) + 1))).toBe(true);
      }),
    );
  });

  test('through an update: 4096 weights of 1, moved by a share of an ulp, move by it on the mean; to nearest they stay', async () => {
    const start = { w: { shape: [64, 64], values: new Float64Array(trials).fill(1), dtype } };
    for (const share of [0.002, 0.02, 0.3, 0.5]) {
      const g = new Float64Array(trials).fill(-share * ulp);
      const given = new Given(start, { rule: lomo });
      await given.update({ w: g }, { lr: 1 });
      const moved = (await given.read('w')).map((w) => (w - 1) / ulp);
      expect(new Set(moved)).toEqual(new Set([0, 1]));
      const mean = moved.reduce((a, b) => a + b, 0) / trials;
      expect(Math.abs(mean - share)).toBeLessThan(4 * Math.sqrt((share * (1 - share)) / trials));
      const nearest = new Given(start, { rule: lomo, rounding: 'nearest' });
      await nearest.update({ w: g }, { lr: 1 });
      expect(new Set(await nearest.read('w'))).toEqual(new Set([1]));
    }
  });

  test('through updates: equal weights with equal gradients round apart, by parameter, element and step, and alike whatever the tiles', async () => {
    const half = new Float64Array(64).fill(-ulp / 2);
    /** Units moved by each of two steps, of two parameters: 0 or 1 an element. */
    const moves = async (tileBytes: number): Promise<readonly number[][]> => {
      const start = { shape: [8, 8], values: new Float64Array(64).fill(1), dtype };
      const given = new Given({ a: start, b: start }, { rule: lomo, tileBytes });
      const seen: number[][] = [];
      const before = new Map([['a', new Array<number>(64).fill(0)], ['b', new Array<number>(64).fill(0)]]);
      for (const step of [1, 2]) {
        await given.update({ a: half, b: half }, { lr: 1, step });
        for (const name of ['a', 'b']) {
          const now = [...(await given.read(name))].map((w) => (w - 1) / ulp);
          seen.push(now.map((units, i) => units - before.get(name)![i]!));
          before.set(name, now);
        }
      }
      return seen;
    };
    const seen = await moves(2 ** 20);
    expect(new Set(seen.map(String)).size).toBe(4);
    const [first] = seen;
    expect(new Set(Array.from({ length: 8 }, (_, row) => String(first!.slice(8 * row, 8 * row + 8)))).size).toBeGreaterThan(4);
    for (const rows of [1, 3]) expect(await moves(rows * 8 * 4), `tiles of ${rows} rows`).toEqual(seen);
  });
});

describe('random words', () => {
  test('are word (element mod 4) of Philox block (element / 4), keyed by seed and parameter, counted by step', () => {
    for (const element of [0, 1, 4, 7, 1003]) {
      const block = philox([12, 34 ^ 56], [Math.floor(element / 4), 0, 9, 0]);
      expect(randomWord({ seed: [12, 34], key: 56, step: 9, element })).toBe(block[element % 4]);
    }
    // Past 2^34 elements the block's high word counts on.
    expect(randomWord({ seed: [1, 0], key: 2, step: 3, element: 4 * (2 ** 32 + 5) })).toBe(philox([1, 2], [5, 1, 3, 0])[0]);
  });

  test('differ by seed, parameter, step and element', () => {
    const place = { seed: [1, 2], key: 3, step: 4, element: 5 } as const;
    const words = [place, { ...place, seed: [2, 2] as const }, { ...place, seed: [1, 3] as const }, { ...place, key: 4 }, { ...place, step: 5 }, { ...place, element: 6 }, { ...place, element: 9 }].map(randomWord);
    expect(new Set(words).size).toBe(words.length);
  });

  test('are read as kernels read them: first the low bits, as many as are dropped, then the others; whole below the normals of f16', () => {
    const away = (dtype: 'bf16' | 'f16', x: number, word: number): boolean => roundStochastic(x, dtype, word) > x;
    // Half-way: the highest of the dropped bits decides.
    expect([0x8000, 0xffff8000, 0x7fff, 0xffff7fff].map((word) => away('bf16', 1 + 2 ** -8, word))).toEqual([true, true, false, false]);
    expect([0x1000, 0xfffff000, 0x0fff, 0xffffefff].map((word) => away('f16', 1 + 2 ** -11, word))).toEqual([true, true, false, false]);
    // The last bit of float32 above 1: it takes all dropped bits set to carry.
    expect([0xffff, 0xfffe].map((word) => away('bf16', 1 + 2 ** -23, word))).toEqual([true, false]);
    expect([0x1fff, 0x1ffe].map((word) => away('f16', 1 + 2 ** -23, word))).toEqual([true, false]);
    // A quarter of a subnormal: words below 2^30 round away.
    expect([2 ** 30 - 1, 2 ** 30].map((word) => away('f16', 2 ** -26, word))).toEqual([true, false]);
  });

  test('f32 is never rounded', () => {
    fc.assert(fc.property(fc.double(), fc.integer({ min: 0, max: 0xffffffff }), (x, word) => {
      expect(roundStochastic(x, 'f32', word)).toBe(x);
    }));
  });
});
