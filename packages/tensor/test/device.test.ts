// Devices: who owns what an op makes, what a missing kernel says, and that a run without data lays memory out as the run with data does.
import { afterEach, describe, expect, test } from 'vitest';
import { add, addInto, addOp, attention, cast, defineOp, Device, DryBackend, embedding, erase, fill, Ledger, linear, LomoError, ReferenceBackend, rmsNorm, scale, siluMul, Tape, tensorOps } from '../src/index.ts';
import type { Allocation, Backend, Op, Tensor } from '../src/index.ts';
import { ByteBackend } from './bytes.ts';

const reference = new ReferenceBackend({ ops: tensorOps });
const device = new Device(reference, { bytes: 1 << 16 });
afterEach(() => {
  expect(device.arena.live).toBe(0);
});

const zeros = (shape: readonly number[], on: Device = device): Tensor => on.allocate({ shape, dtype: 'f32' }, 'workspace');
const caught = (body: () => unknown): LomoError => {
  try {
    body();
  } catch (error) {
    if (error instanceof LomoError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
};

describe('pruned launches', () => {
  const counted = <T>(body: () => T): { readonly result: T; readonly ops: readonly string[] } => {
    const ops: string[] = [];
    device.observer = { launched: ({ name }) => void ops.push(name) };
    try {
      return { result: body(), ops };
    } finally {
      device.observer = null;
    }
  };

  test('run what is read, directly or through others, in their order, and lay out memory as if all ran', async () => {
    using x = zeros([4]);
    device.writeNumbers(x, [1, 2, 3, 4]);
    const offsets: number[] = [];
    device.arena.observer = { allocated: ({ offset }) => void offsets.push(offset) };
    const body = () => device.own(() => {
      const doubled = scale(x, 2);
      const read = add(doubled, x);
      const unread = add(read, scale(read, 5));
      return { result: [read, unread] as const, keep: [read, unread] };
    });
    const { result: all, ops: allOps } = counted(body);
    for (const tensor of all) tensor.dispose();
    const { result, ops } = counted(() => device.pruned(body, ([read]) => [read]));
    device.arena.observer = null;
    expect(allOps).toEqual(['scale', 'add', 'scale', 'add']);
    expect(ops).toEqual(['scale', 'add']);
    expect([...(await device.readNumbers(result[0]))]).toEqual([3, 6, 9, 12]);
    expect(offsets.slice(offsets.length / 2)).toEqual(offsets.slice(0, offsets.length / 2));
    for (const tensor of result) tensor.dispose();
  });

  test('in-place ops always run, and so does what came before bytes move', async () => {
    using x = zeros([4]);
    using y = zeros([4]);
    device.writeNumbers(x, [1, 2, 3, 4]);
    const { ops } = counted(() =>
      device.pruned(
        () => device.scope(() => {
          addInto(y, scale(x, 3));
          fill(y, 0);
          scale(x, 7);
          device.copy(y, scale(x, 2));
          scale(x, 9);
        }),
        () => [],
      ),
    );
    expect(ops).toEqual(['scale', 'add_into', 'fill', 'scale', 'scale']);
    expect([...(await device.readNumbers(y))]).toEqual([2, 4, 6, 8]);
  });

  test('nothing stays postponed after an error, and they do not nest', () => {
    using x = zeros([4]);
    const inner = (): void => {
      scale(x, 2);
      device.pruned(() => {}, () => []);
    };
    expect(() => device.pruned(() => device.scope(inner), () => [])).toThrow('do not nest');
    expect(counted(() => device.scope(() => void scale(x, 2))).ops).toEqual(['scale']);
  });
});

describe('scopes', () => {
  test('give back what was made inside, except what they return', () => {
    using x = zeros([4]);
    const before = device.arena.live;
    const kept = device.scope(() => scale(add(x, x), 2));
    expect(device.arena.live).toBe(before + kept.block.bytes);
    kept.dispose();
  });

  test('hand what they return to the scope around them', () => {
    using x = zeros([4]);
    const before = device.arena.live;
    device.scope(() => {
      device.scope(() => add(x, x));
      expect(device.arena.live).toBeGreaterThan(before);
    });
    expect(device.arena.live).toBe(before);
  });

  test('give everything back when something is thrown inside', () => {
    using x = zeros([4]);
    const before = device.arena.live;
    expect(() => device.scope(() => {
      add(x, x);
      throw new Error('inside');
    })).toThrow('inside');
    expect(() => device.own(() => {
      add(x, x);
      throw new Error('inside');
    })).toThrow('inside');
    expect(device.arena.live).toBe(before);
  });

  test('a shared handle outlives its first owner; a view owns nothing', () => {
    const x = zeros([4]);
    const second = x.share();
    x.rows(0, 2).dispose();
    x.dispose();
    x.dispose();
    expect(device.arena.live).toBe(256);
    second.dispose();
  });
});

describe('refusals name the thing and what there is', () => {
  test('no kernel', () => {
    const poor = new Device(new ByteBackend([erase(addOp)], { missing: (_, { ins }) => ins[0] !== 'f32' }), { bytes: 1 << 14 });
    const half = poor.allocate({ shape: [2], dtype: 'bf16' }, 'workspace');
    const error = caught(() => add(half, half));
    expect([error.code, error.message]).toEqual(['MissingKernel', "'add' has no kernel for bf16, bf16 |  | bf16 on bytes (has: f32)"]);
  });

  test('a kernel with other attributes than the op', () => {
    const other = defineOp({ ...addOp, attributes: ['alpha'] as never });
    const odd = new Device(new ByteBackend([erase(other)]), { bytes: 1 << 14 });
    const x = zeros([2], odd);
    expect(caught(() => add(x, x)).code).toBe('AttributeMismatch');
  });

  test('shapes', () => {
    using a = zeros([2, 3]);
    using b = zeros([3, 2]);
    expect(caught(() => add(a, b)).message).toBe('add: expected equal shapes, got [2, 3], [3, 2]');
    expect(caught(() => a.rows(1, 3)).code).toBe('ShapeError');
    expect(caught(() => a.reshape([7])).code).toBe('ShapeError');
    expect(caught(() => device.writeNumbers(a, [1])).code).toBe('ShapeError');
    expect(caught(() => device.copy(a, a.rows(0, 1))).code).toBe('ShapeError');
    expect(caught(() => device.parameter('ids', { shape: [2], dtype: 'i32' })).code).toBe('DTypeError');
  });

  test('a token outside the vocabulary, with its place; and the backend stays poisoned', async () => {
    await using backend = new ReferenceBackend({ ops: tensorOps });
    const on = new Device(backend, { bytes: 1 << 12 });
    const ids = on.allocate({ shape: [3], dtype: 'i32' }, 'io');
    on.writeNumbers(ids, [0, 5, 1]);
    const table = zeros([4, 2], on);
    expect(caught(() => embedding(ids, table)).message).toBe('embedding: token id 5 at position 1 is outside the vocabulary of 4');
    expect(caught(() => add(table, table)).code).toBe('TokenOutOfRange');
    await expect(backend.read(table)).rejects.toMatchObject({ code: 'TokenOutOfRange' });
  });
});

test('cast rounds to nearest even and back without loss', async () => {
  using x = zeros([3]);
  device.writeNumbers(x, [1, 1.00390625, -3.0117188]);
  using half = cast(x, 'bf16');
  using back = cast(half, 'f32');
  expect([...(await device.readNumbers(back))]).toEqual([1, 1, -3.015625]);
});

/** A block of a transformer, recorded, walked back and given back; what it allocated, in order. */
function allocationsOf(backend: Backend, odd: Op): { readonly allocations: readonly Allocation[]; readonly extent: number } {
  const on = new Device(backend, { bytes: backend instanceof DryBackend ? Infinity : 1 << 20 });
  const allocations: Allocation[] = [];
  on.arena.observer = { allocated: ({ category, bytes, offset }) => allocations.push({ category, bytes, offset }) };
  const x = zeros([10, 8], on);
  const starts = on.allocate({ shape: [2], dtype: 'i32' }, 'io');
  on.writeNumbers(starts, [0, 10]);
  const [q, k, v, up] = ['q', 'k', 'v', 'up'].map((path) => on.parameter(path, { shape: [8, 8], dtype: 'f32' }));
  const norm = on.parameter('norm', { shape: [8], dtype: 'f32' });
  const ledger = new Ledger(on, { microBatches: 1, accumulate: 'buffer', settle: (p, g) => g.tiles((tile) => on.copy(p.reshape(tile.shape), tile)) });
  const tape = new Tape(on, x, (p) => ledger.hold(p));
  const out = on.under({ category: 'saved', recorder: tape }, () => on.own(() => {
    const n = rmsNorm(x, norm, 1e-5);
    const heads = (t: Tensor): Tensor => t.reshape([10, 2, 4]);
    const o = attention(heads(linear(n, q!)), { k: heads(linear(n, k!)), v: heads(linear(n, v!)) }, { cuQ: starts, cuK: starts, maxQ: 10, maxK: 10 });
    on.run(odd, { ins: [o.reshape([10, 8])] }, { salt: 3 });
    const result = add(x, siluMul(linear(o.reshape([10, 8]), up!), n));
    return { result, keep: [result] };
  }));
  const dx = tape.walk(out, zeros([10, 8], on), { ledger, microBatch: 0, stage: 'block', stores: ledger.factorStores('block') });
  ledger.finish();
  for (const t of [dx!, out, x, starts, q!, k!, v!, up!, norm]) t.dispose();
  expect(on.arena.live).toBe(0);
  on.free();
  return { allocations, extent: on.arena.extent };
}

test('without data the allocations are the same, workspaces and an op of a bizarre size included', () => {
  const odd = erase(defineOp({
    name: 'odd',
    attributes: ['salt'],
    dtypes: ['f32'],
    infer: (ins, { salt }: { readonly salt: number }) => [{ shape: [ins[0]!.shape[0]! ** 2 * salt + 17], dtype: 'f32' }],
    reference: ({ outs }) => outs[0]!.data.fill(0),
    flops: () => 0,
    sample: () => ({ ins: [], attributes: { salt: 1 } }),
  }));
  // Scratch that no op knows of: its size is the kernel's secret.
  const target = new ByteBackend([...tensorOps, odd], {
    workspace: (kernel, { ins }) => (kernel.name === 'matmul' ? 0 : 100 * kernel.name.length + 7 * ins.length),
  });
  const real = allocationsOf(target, odd);
  const dry = allocationsOf(new DryBackend(target), odd);
  expect(dry).toEqual(real);
  expect(real.allocations).toContainEqual(expect.objectContaining({ bytes: Math.ceil((4 * (300 + 17)) / 256) * 256, category: 'saved' }));
  expect(real.allocations.filter((a) => a.category === 'workspace').length).toBeGreaterThan(15);
  expect(new DryBackend(target).reserved()).toBe(0);
});
