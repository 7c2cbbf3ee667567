// Gradients as lists of terms: tiles of any height are the rows of the whole, bit for bit, in the order of the terms; consumed, nothing is left.
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { Dense, Device, Factors, Grad, Random, ReferenceBackend, tensorOps, zeroGrad } from '../src/index.ts';
import type { Tensor, Term } from '../src/index.ts';

const backend = new ReferenceBackend({ ops: tensorOps, precision: 'f32', chunk: 8 });
let device = new Device(backend, { bytes: 1 << 20 });
afterEach(() => {
  expect(device.arena.live).toBe(0);
  device.free();
  device = new Device(backend, { bytes: 1 << 20 });
});

function tensor(shape: readonly number[], random: Random): Tensor {
  const t = device.allocate({ shape, dtype: 'f32' }, 'workspace');
  device.writeNumbers(t, random.normal(shape.reduce((a, b) => a * b, 1)));
  return t;
}

interface Form {
  readonly rows: number;
  readonly columns: number;
  readonly tokens: readonly number[];
  readonly dense: boolean;
  readonly seed: number;
}

/** Terms of every kind: a product over some tokens for each entry of `tokens`, then perhaps a dense one. */
function gradOf({ rows, columns, tokens, dense, seed }: Form): Grad {
  const random = new Random(seed);
  const terms: Term[] = tokens.map((count) => new Factors(tensor([count, rows], random), tensor([count, columns], random)));
  if (dense) terms.push(new Dense(tensor([rows, columns], random)));
  return new Grad(device, [rows, columns], terms);
}

function whole(grad: Grad): number[] {
  using value = grad.value();
  return [...backend.readExact(value)];
}

const form: fc.Arbitrary<Form> = fc.record({
  rows: fc.integer({ min: 1, max: 12 }),
  columns: fc.integer({ min: 1, max: 9 }),
  tokens: fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 3 }),
  dense: fc.boolean(),
  seed: fc.nat(1e6),
});

test('tiles of any height, visited any number of times, are the rows of the whole', () => {
  fc.assert(
    fc.property(form, fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 3 }), (shape, tileBytes, visits) => {
      const reference = gradOf(shape);
      const want = whole(reference);
      reference.release();
      const small = new Device(backend, { bytes: 1 << 20, tileBytes });
      const large = device;
      device = small;
      try {
        const grad = gradOf(shape);
        for (let visit = 0; visit < visits; visit++) {
          const got: number[] = [];
          let next = 0;
          grad.tiles((tile, { from, to }) => {
            expect(from).toBe(next);
            expect(tile.shape).toEqual([to - from, shape.columns]);
            expect(tile.bytes).toBeLessThanOrEqual(Math.max(tileBytes, 4 * shape.columns));
            next = to;
            got.push(...backend.readExact(tile));
          });
          expect(next).toBe(shape.rows);
          expect(got).toEqual(want);
        }
        grad.release();
        expect(small.arena.live).toBe(0);
      } finally {
        small.free();
        device = large;
      }
    }),
    { numRuns: 60 },
  );
});

test('tiles of any height cost the work of the whole', () => {
  const work = (tileBytes: number): number => {
    const on = new Device(backend, { bytes: 1 << 20, tileBytes });
    const large = device;
    device = on;
    let flops = 0;
    on.observer = { launched: (op, { ins, inouts, outs }, attributes) => void (flops += op.name === 'weight_grad' ? op.flops(ins, attributes, inouts, outs) : 0) };
    const grad = gradOf({ rows: 7, columns: 4, tokens: [5], dense: false, seed: 1 });
    grad.tiles(() => {});
    grad.release();
    on.free();
    device = large;
    return flops;
  };
  expect([1, 40, 1000].map(work)).toEqual([280, 280, 280]);
});

describe('a gradient', () => {
  test('without terms is zero', () => {
    const grad = zeroGrad(device, [3, 2]);
    expect(whole(grad)).toEqual([0, 0, 0, 0, 0, 0]);
    grad.tiles((tile) => expect([...backend.readExact(tile)]).toEqual([0, 0, 0, 0, 0, 0]));
    grad.release();
    expect(() => zeroGrad(device, [0, 4])).toThrow(/no elements/);
  });

  test('sums its terms from first to last', () => {
    const dense = (value: number): Term => {
      const t = device.allocate({ shape: [1], dtype: 'f32' }, 'workspace');
      device.writeNumbers(t, [value]);
      return new Dense(t);
    };
    const [a, b] = [new Grad(device, [1], [dense(2 ** 24), dense(1)]), new Grad(device, [1], [dense(1)])];
    const both = a.add(b);
    // (2^24 + 1) + 1 in f32 is 2^24: each one alone is lost. From the other end it would be 2^24 + 2.
    expect(whole(both)).toEqual([2 ** 24]);
    both.release();
    const reversed = new Grad(device, [1], [dense(1), dense(1), dense(2 ** 24)]);
    expect(whole(reversed)).toEqual([2 ** 24 + 2]);
    reversed.release();
  });

  test('of a vector is one tile, whatever its size', () => {
    const small = new Device(backend, { bytes: 4096, tileBytes: 8 });
    const grad = zeroGrad(small, [100]);
    expect(grad.single).toBe(true);
    const shapes: (readonly number[])[] = [];
    grad.tiles((tile) => shapes.push(tile.shape));
    expect(shapes).toEqual([[1, 100]]);
    grad.release();
    small.free();
  });

  test('that is already a tensor is seen in place: no byte more', () => {
    const t = tensor([4, 4], new Random(1));
    const grad = new Grad(device, [4, 4], [new Dense(t)]);
    const before = device.arena.live;
    grad.tiles((tile) => expect(tile.block).toBe(t.block));
    expect(device.arena.live).toBe(before);
    grad.release();
  });
});
