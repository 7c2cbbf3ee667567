// The tape and the ledger: parameters settle exactly once, at the right moment, with the right gradient, and every byte comes back.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { add, CountingTape, defineOp, erase, fill, isLomoError, linear, mul, Parameter, ReferenceBackend, rmsNorm, scale, Device } from '../src/index.ts';
import { Bench, timesTransposed, transposed } from './bench.ts';

let bench = new Bench();
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => {
  expect(bench.free()).toBe(0);
});

const close = (a: readonly number[], b: readonly number[]): void => {
  expect(a.length).toBe(b.length);
  a.forEach((x, i) => expect(x).toBeCloseTo(b[i]!, 12));
};

describe('settling', () => {
  test('happens once a parameter, later layers first, and versions count it', () => {
    const x = bench.tensor([3, 4]);
    const [first, second] = ['first', 'second'].map((path) => bench.parameter(path, [4, 4]));
    const ledger = bench.ledger();
    const recorded = bench.record(ledger, x, () => linear(linear(x, first!), second!));
    bench.walk(ledger, recorded);
    ledger.finish();
    expect(bench.settled.map(({ path, order }) => [path, order])).toEqual([['second', 0], ['first', 1]]);
    expect([first!.version, second!.version]).toEqual([1, 1]);
    expect(ledger.settled).toBe(2);
  });

  test('comes after the input gradient has been made from the old weight', () => {
    const x = bench.tensor([3, 4]);
    const w = bench.parameter('w', [2, 4]);
    const old = bench.read(w);
    const ledger = bench.ledger({}, (p) => fill(p, 99));
    const dy = [1, 2, 3, 4, 5, 6];
    const dx = bench.walk(ledger, bench.record(ledger, x, () => linear(x, w)), { dy })!;
    close(dx, timesTransposed(dy, transposed(old, 4), 2));
    close(bench.settled[0]!.gradient, timesTransposed(transposed(dy, 2), transposed(bench.read(x), 4), 3));
    expect(bench.read(w)).toEqual(Array(8).fill(99));
  });

  test('of a tied weight waits for its other reader and takes both gradients', () => {
    const x = bench.tensor([2, 3]);
    const w = bench.parameter('w', [3, 3]);
    const ledger = bench.ledger();
    bench.walk(ledger, bench.record(ledger, x, () => linear(linear(x, w), w)));
    expect(bench.settled).toHaveLength(1);
    const [a, h] = [bench.read(w), timesTransposed(bench.read(x), bench.read(w), 3)];
    const ones = Array<number>(6).fill(1);
    const dh = timesTransposed(ones, transposed(a, 3), 3);
    const [outer, inner] = [timesTransposed(transposed(ones, 3), transposed(h, 3), 2), timesTransposed(transposed(dh, 3), transposed(bench.read(x), 3), 2)];
    close(bench.settled[0]!.gradient, outer.map((g, i) => g + inner[i]!));
  });

  test('waits for every micro-batch', () => {
    const w = bench.parameter('w', [2, 3]);
    for (const accumulate of ['buffer', 'factors'] as const) {
      bench.settled.length = 0;
      const ledger = bench.ledger({ microBatches: 3, accumulate });
      for (let m = 0; m < 3; m++) ledger.hold(w);
      for (let microBatch = 0; microBatch < 3; microBatch++) {
        const x = bench.tensor([8, 3], new Float64Array(24).fill(microBatch + 1));
        const recorded = bench.record(ledger, x, () => linear(x, w));
        ledger.release(w);
        expect(bench.settled).toHaveLength(0);
        bench.walk(ledger, recorded, { microBatch });
      }
      ledger.closeStores('stage');
      ledger.finish();
      expect(bench.settled.map((s) => s.gradient)).toEqual([Array(6).fill(8 * (1 + 2 + 3))]);
    }
  });

  test('gives zero to a parameter on a branch nobody differentiates', () => {
    const x = bench.tensor([2, 3]);
    const [used, idle] = [bench.parameter('used', [3, 3]), bench.parameter('idle', [3, 3])];
    const ledger = bench.ledger();
    const recorded = bench.record(ledger, x, () => {
      linear(x, idle);
      return linear(x, used);
    });
    bench.walk(ledger, recorded);
    ledger.finish();
    expect(bench.settled.find((s) => s.path === 'idle')!.gradient).toEqual(Array(9).fill(0));
    expect(bench.settled.find((s) => s.path === 'used')!.gradient.some((g) => g !== 0)).toBe(true);
  });

  test('leaves frozen parameters alone, but walks through them', () => {
    const x = bench.tensor([2, 3]);
    const [below, frozen] = [bench.parameter('below', [3, 3]), bench.parameter('frozen', [3, 3], false)];
    const norm = bench.parameter('norm', [3], false);
    const ledger = bench.ledger();
    const dx = bench.walk(ledger, bench.record(ledger, x, () => rmsNorm(linear(linear(x, below), frozen), norm, 1e-5)));
    ledger.finish();
    expect(bench.settled.map((s) => s.path)).toEqual(['below']);
    expect([frozen.version, norm.version]).toEqual([0, 0]);
    expect(dx!.some((g) => g !== 0)).toBe(true);
  });
});

describe('activations', () => {
  test('used twice get the sum of both gradients', () => {
    const x = bench.tensor([2, 2], [1, 2, 3, 4]);
    const ledger = bench.ledger();
    const dx = bench.walk(ledger, bench.record(ledger, x, () => add(mul(x, x), scale(x, 10))));
    close(dx!, [12, 14, 16, 18]);
  });

  test('added to themselves get twice the gradient', () => {
    const x = bench.tensor([2, 2]);
    const ledger = bench.ledger();
    close(bench.walk(ledger, bench.record(ledger, x, () => add(x, x)), { dy: [1, 2, 3, 4] })!, [2, 4, 6, 8]);
  });

  test('behind a residual keep their own gradient: the shared one is not added to in place', () => {
    const x = bench.tensor([2, 3]);
    const w = bench.parameter('w', [3, 3]);
    const ledger = bench.ledger();
    const dy = [1, 2, 3, 4, 5, 6];
    // Both inputs of the second sum see the same dy; the first must not become the second's accumulator.
    const dx = bench.walk(ledger, bench.record(ledger, x, () => {
      const h = scale(x, 2);
      return add(h, add(linear(h, w), h));
    }), { dy })!;
    const through = timesTransposed(dy, transposed(bench.read(w), 3), 3);
    close(dx, dy.map((g, i) => 2 * (2 * g + through[i]!)));
  });

  test('share a gradient with a neighbour until they have one of their own: a layer does not add into the shared one', () => {
    const x = bench.tensor([2, 3]);
    const w = bench.parameter('w', [3, 3]);
    const ledger = bench.ledger();
    const dy = [1, 2, 3, 4, 5, 6];
    // When the layer is walked, h already has dy, and so has a, which is walked later.
    const dx = bench.walk(ledger, bench.record(ledger, x, () => {
      const [h, a] = [scale(x, 2), scale(x, 5)];
      const l = linear(h, w);
      return add(add(h, a), l);
    }), { dy })!;
    const through = timesTransposed(dy, transposed(bench.read(w), 3), 3);
    close(dx, dy.map((g, i) => 2 * (g + through[i]!) + 5 * g));
    close(bench.settled[0]!.gradient, timesTransposed(transposed(dy, 3), transposed(bench.read(x).map((v) => 2 * v), 3), 2));
  });

  test('read by several layers share one gradient tensor, added to in place', () => {
    const x = bench.tensor([64, 3]);
    const weights = ['q', 'k', 'v'].map((path) => bench.parameter(path, [3, 3]));
    const ledger = bench.ledger();
    const recorded = bench.record(ledger, x, () => {
      const [q, k, v] = weights.map((w) => linear(x, w));
      return add(add(q!, k!), v!);
    });
    let tensors = 0;
    bench.device.arena.observer = { allocated: ({ bytes, category }) => (tensors += category === 'workspace' && bytes === 64 * 3 * 4 ? 1 : 0) };
    bench.walk(ledger, recorded);
    bench.device.arena.observer = null;
    // dy, and one dx: q, k and v add into the same.
    expect(tensors).toBe(2);
  });
});

describe('refusals', () => {
  const code = (body: () => void): string => {
    try {
      body();
    } catch (error) {
      if (isLomoError(error)) return error.code;
      throw error;
    }
    return 'nothing thrown';
  };

  test('a parameter that is held to the end is named', () => {
    const w = bench.parameter('model.norm.weight', [3]);
    const ledger = bench.ledger();
    ledger.hold(w);
    ledger.hold(w);
    ledger.release(w);
    expect(() => ledger.finish()).toThrow(/model\.norm\.weight is still held by 1 reads/);
    expect(code(() => ledger.finish())).toBe('NeverSettled');
  });

  test('a read after settling', () => {
    const x = bench.tensor([2, 3]);
    const w = bench.parameter('w', [3, 3]);
    const ledger = bench.ledger();
    bench.walk(ledger, bench.record(ledger, x, () => linear(x, w)));
    expect(code(() => ledger.hold(w))).toBe('SettledTooEarly');
  });

  test('a walk over a parameter that changed since it was recorded', () => {
    const x = bench.tensor([2, 3]);
    const w = bench.parameter('w', [3, 3]);
    const ledger = bench.ledger();
    const recorded = bench.record(ledger, x, () => linear(x, w));
    w.version++;
    expect(() => bench.walk(ledger, recorded)).toThrow(/'linear' recorded w at version 0, it is now at 1/);
    recorded.tape.discard();
    bench.device.arena.observer = null;
    // The failed walk's gradient is lost with the run: a new bench starts clean.
    expect(bench.free()).toBe(256);
    bench = new Bench();
  });

  test('more releases than holds', () => {
    const w = bench.parameter('w', [3]);
    const ledger = bench.ledger();
    expect(code(() => ledger.release(w))).toBe('LedgerError');
  });

  test('an op without gradient between an activation and the loss', () => {
    const blunt = defineOp({ name: 'blunt', attributes: [], dtypes: ['f32'], infer: (ins) => [ins[0]!], reference: () => {}, flops: () => 0, sample: () => ({ ins: [], attributes: {} }) });
    const backend = new ReferenceBackend({ ops: [erase(blunt)] });
    const device = new Device(backend, { bytes: 4096 });
    const x = bench.tensor([2, 2]);
    const y = device.allocate({ shape: [2, 2], dtype: 'f32' }, 'workspace');
    const ledger = bench.ledger();
    expect(code(() => bench.record(ledger, y, () => device.under({ category: 'saved', recorder: bench.device.recorder }, () => device.apply(blunt, [y], {})[0]!)))).toBe('NotDifferentiable');
    expect(x.shape).toEqual([2, 2]);
  });
});

test('a discarded tape gives back what it saved', () => {
  const x = bench.tensor([8, 8]);
  const w = bench.parameter('w', [8, 8]);
  const before = bench.device.arena.live;
  const ledger = bench.ledger();
  const { tape, out } = bench.record(ledger, x, () => mul(linear(x, w), linear(x, w)));
  expect(bench.device.arena.live).toBeGreaterThan(before + out.bytes);
  tape.discard();
  out.dispose();
  expect(bench.device.arena.live).toBe(before);
});

test('a counting tape keeps nothing and counts reads', () => {
  const x = bench.tensor([2, 4]);
  const [w, unused] = [bench.parameter('w', [4, 4]), bench.parameter('unused', [4, 4])];
  const before = bench.device.arena.live;
  const tape = new CountingTape();
  bench.device.under({ category: 'workspace', recorder: tape }, () => bench.device.scope(() => {
    linear(linear(x, w), w);
  }));
  expect(tape.reads).toEqual(new Map<Parameter, number>([[w, 2]]));
  expect(tape.reads.has(unused)).toBe(false);
  expect(bench.device.arena.live).toBe(before);
});
