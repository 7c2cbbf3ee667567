// Stochastic rounding through the update kernel, on the CPU and by the definition: exact in expectation over 4096 seeds, and a function of seed,
// parameter, step and element alone. To nearest stays to nearest.
import { createHash } from 'node:crypto';
import { cpu } from '@lomo/cpu';
import type { CpuBackend } from '@lomo/cpu';
import { adalomo, adamw, lomo, lomoUpdateOp, optimOps, randomWord, roundStochastic, sgd } from '@lomo/optim';
import { decode, Device, encode, fromBf16, fromF16, keyOf, ReferenceBackend, tensorOps, toBf16, toF16 } from '@lomo/tensor';
import type { Backend } from '@lomo/tensor';
import { afterAll, describe, expect, test } from 'vitest';
import type { SmallOptions } from './small.ts';
import { cut, small } from './small.ts';

const backends = new Map<number, CpuBackend>();
const backendOf = (threads: number): CpuBackend => {
  const known = backends.get(threads) ?? cpu({ threads });
  backends.set(threads, known);
  return known;
};
afterAll(async () => {
  for (const backend of backends.values()) await backend[Symbol.asyncDispose]();
});

const seeds = 4096;
const kinds = [
  { dtype: 'bf16', to: toBf16, from: fromBf16, bits: 7, tiny: 2 ** -133 },
  { dtype: 'f16', to: toF16, from: fromF16, bits: 10, tiny: 2 ** -24 },
] as const;
type Kind = (typeof kinds)[number];

/** A weight, the movement wanted of it, and its name. */
interface Move {
  readonly name: string;
  readonly start: number;
  readonly by: number;
}

const magnitudes = [1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 0.499, 0.5, 0.501, 0.9, 0.999, 1.3, 1.5, 2.7, 5.01, 9.5, 9.99];

/** Movements of 1e-3 to 10 units in every direction from every kind of place. */
function moves({ bits, tiny }: Kind): Move[] {
  const unit = 2 ** -bits;
  const places = [
    { name: 'up from 1', start: 1, unit }, { name: 'down from 1.5', start: 1.5, unit: -unit }, { name: 'down from -1', start: -1, unit: -unit },
    { name: 'up from -1.25', start: -1.25, unit }, { name: 'up from 2^-6', start: 2 ** -6, unit: unit * 2 ** -6 }, { name: 'down from -24', start: -24, unit: -unit * 16 },
    // The unit below a power of two is half of that above.
    { name: 'down from 1', start: 1, unit: -unit / 2 }, { name: 'up from -4', start: -4, unit: 2 * unit }, { name: 'up from -2^-5', start: -(2 ** -5), unit: (unit / 2) * 2 ** -5 },
    { name: 'up from 0', start: 0, unit: tiny }, { name: 'down from 0', start: 0, unit: -tiny }, { name: 'up among subnormals', start: 5 * tiny, unit: tiny },
    { name: 'down among subnormals', start: 30 * tiny, unit: -tiny }, { name: 'negative subnormals', start: -30 * tiny, unit: tiny },
    // From the least normal number down to the subnormals, and from the largest subnormal up.
    { name: 'down from the least normal', start: tiny * 2 ** bits, unit: -tiny }, { name: 'up from the largest subnormal', start: tiny * (2 ** bits - 1), unit: tiny },
  ];
  return places.flatMap(({ name, start, unit }) => magnitudes.map((m) => ({ name: `${name}, ${m} units`, start, by: m * unit })));
}

/** Launches the update once a seed; `each` sees what the weights became. lr 1: p' = p - g, in f32. */
async function overSeeds(backend: Backend, kind: Kind, options: { readonly list: readonly Move[]; readonly seeds: number; readonly rounding: number; readonly each: (values: Float64Array, seed: number) => void }): Promise<void> {
  const { list, rounding, each } = options;
  const device = new Device(backend, { bytes: 1 << 17 });
  const shape = [1, list.length];
  const [p, g] = [device.allocate({ shape, dtype: kind.dtype }, 'weights'), device.allocate({ shape, dtype: 'f32' }, 'gradient')];
  const [scalars, counters] = [device.allocate({ shape: [8], dtype: 'f32' }, 'io'), device.allocate({ shape: [8], dtype: 'i32' }, 'io')];
  device.writeNumbers(g, list.map(({ by }) => -by));
  device.writeNumbers(scalars, [1, 1, 1, 1, 0, 0, 0, 0]);
  const start = encode(kind.dtype, list.map((move) => move.start));
  const run = (seed: number): void => {
    device.write(p, start);
    device.writeNumbers(counters, [1, seed, 0, 0, 0, 0, 0, 0]);
    device.run(lomoUpdateOp, { ins: [g, scalars], inouts: [p, counters], outs: [] }, { key: keyOf('w'), element: 3, index: 0, weightDecay: 0, clipValue: 0, rounding, check: 1 });
  };
  for (let seed = 0; seed < options.seeds; seed++) {
    run(seed);
    each(decode(kind.dtype, await device.read(p)), seed);
  }
  device.free();
}

/** What f32 arithmetic makes of a move: what is rounded. */
const exact = ({ start, by }: Move): number => Math.fround(start - Math.fround(-by));

/** The numbers of the dtype around x: [x, x] where it holds x. */
function around(x: number, { to, from }: Kind): readonly [toZero: number, away: number] {
  const magnitude = Math.abs(x);
  let low = to(magnitude);
  if (from(low) > magnitude) low--;
  const high = from(low) === magnitude ? low : low + 1;
  return [Math.sign(x) * from(low), Math.sign(x) * from(high)];
}

describe.each(kinds)('$dtype', (kind) => {
  const list = moves(kind);

  describe.each([
    ['the CPU', () => backendOf(1) as Backend, 16],
    ['the definition', () => new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' }) as Backend, 1],
  ] as const)('on %s', (_, backend, copies) => {
    test('the mean over 4096 seeds is the exact update, within 4 standard errors', async () => {
      // Each move at several elements: their words differ, and rare roundings are frequent enough for their count to be near normal.
      const repeated = Array.from({ length: copies }, () => list).flat();
      const sums = new Float64Array(repeated.length);
      const strange = new Set<string>();
      // The definition holds the update in double: what it rounds is the exact one; kernels round the f32 nearest to it.
      const wanted = repeated.map((move) => (copies === 1 ? move.start - Math.fround(-move.by) : exact(move)));
      const neighbours = wanted.map((x) => around(x, kind));
      await overSeeds(backend(), kind, {
        list: repeated, seeds, rounding: 1,
        each: (values) => values.forEach((x, i) => {
          const [low, high] = neighbours[i]!;
          if (x !== low && x !== high) strange.add(`${repeated[i]!.name}: ${x}, not ${low} or ${high}`);
          sums[i]! += low === high ? 0 : (x - low) / (high - low);
        }),
      });
      expect([...strange]).toEqual([]);
      const off = list.flatMap(({ name }, i) => {
        const [low, high] = neighbours[i]!;
        if (low === high) return [];
        const n = copies * seeds;
        const share = (wanted[i]! - low) / (high - low);
        const mean = Array.from({ length: copies }, (_unused, c) => sums[c * list.length + i]!).reduce((a, b) => a + b, 0) / n;
        const errors = Math.abs(mean - share) / Math.sqrt((share * (1 - share)) / n);
        // What the mean is off from the movement that was asked for, f32 arithmetic included.
        const asked = (repeated[i]!.start + repeated[i]!.by - low) / (high - low);
        const fromAsked = Math.abs(mean - asked) / Math.sqrt((share * (1 - share)) / n);
        return errors < 4 && (fromAsked < 4 || Math.abs(asked - share) > 1e-4) ? [] : [`${name}: the mean is ${mean}, wanted ${share}: ${errors.toFixed(1)} standard errors, ${fromAsked.toFixed(1)} from what was asked`];
      });
      expect(off).toEqual([]);
    });

    test('to nearest: the same whatever the seed, ties to even', async () => {
      const all: Float64Array[] = [];
      await overSeeds(backend(), kind, { list, seeds: 3, rounding: 0, each: (values) => all.push(values) });
      const wanted = list.map((move) => kind.from(kind.to(copies === 1 ? move.start - Math.fround(-move.by) : exact(move))));
      for (const values of all) expect([...values].map((x) => x + 0)).toEqual(wanted.map((x) => x + 0)); // -0 + 0 is 0
      const tie = { name: 'tie', start: 1, by: 2 ** -(kind.bits + 1) };
      await overSeeds(backend(), kind, { list: [tie, { ...tie, start: 1 + 2 ** -kind.bits }], seeds: 1, rounding: 0, each: (values) => expect([...values]).toEqual([1, 1 + 2 ** (1 - kind.bits)]) });
    });
  });

  test('kernels of every instruction set draw the very words of the definition, and read them alike', async () => {
    const few = 64;
    for (const isa of ['portable', 'avx2', 'avx512'] as const) {
      let backend: CpuBackend;
      try {
        backend = cpu({ threads: 2, isa });
      } catch (error) {
        expect(String(error), `${isa} on this machine`).toMatch(/instruction set|UnsupportedIsa/i);
        continue;
      }
      const differing: string[] = [];
      await overSeeds(backend, kind, {
        list, seeds: few, rounding: 1,
        each: (values, seed) => values.forEach((x, i) => {
          const word = randomWord({ seed: [seed, 0], key: keyOf('w'), step: 1, element: 3 + i });
          const want = roundStochastic(exact(list[i]!), kind.dtype, word);
          if (x !== want) differing.push(`${isa} seed ${seed} ${list[i]!.name}: ${x}, not ${want}`);
        }),
      });
      expect(differing).toEqual([]);
      await backend[Symbol.asyncDispose]();
    }
  });
});

interface Case extends Omit<SmallOptions, 'tokens' | 'microBatches'> {
  readonly threads?: number;
  readonly count?: number;
  /** Steps after which everything is carried over to a new device. */
  readonly moved?: number;
}

const tokens = 1024;
const last = 3;

/** Hash of all weights and states after three steps. */
async function trained(options: Case): Promise<string> {
  const { threads = 2, count = 1, moved, ...rest } = options;
  const make = () => small(backendOf(threads), { headForm: 'tiles', ...rest, config: { num_hidden_layers: 1, ...rest.config }, microBatches: count, tokens: tokens / count });
  let made = make();
  for (let step = 1; step <= last; step++) {
    await made.program.run({ step, seed: 5, lr: 0.002, batches: cut(tokens, count, { seed: step }), passes: made.optimizer.passes });
    if (step !== moved) continue;
    const tensors = (m: typeof made) => [...m.model.parameters, ...[...m.optimizer.state()].map(({ tensor }) => tensor)];
    const values = await Promise.all(tensors(made).map((t) => made.device.read(t)));
    made.device.free();
    made = make();
    tensors(made).forEach((t, i) => made.device.write(t, values[i]!));
  }
  const hash = createHash('sha256');
  for (const t of [...made.model.parameters, ...[...made.optimizer.state()].map(({ tensor }) => tensor)]) hash.update(new Uint8Array((await made.device.read(t)).buffer));
  made.device.free();
  return hash.digest('hex');
}

describe.each(['bf16', 'f16'] as const)('training in %s, rounded stochastically', (dtype) => {
  test.each([lomo, adalomo(), adamw(), sgd].map((rule) => [rule.name, rule] as const))('%s: equal bits over tiles, threads, micro-batches and resume', async (_, rule) => {
    // Products in f16 take the slow way: fewer cases of each kind there.
    const short = dtype === 'f16';
    const one = await trained({ rule, dtype });
    for (const threads of short ? [4] : [1, 4]) expect(await trained({ rule, dtype, threads }), `${threads} threads`).toBe(one);
    for (const count of short ? [4] : [4, 16]) expect(await trained({ rule, dtype, count, accumulate: 'factors' }), `${count} micro-batches`).toBe(one);
    expect(await trained({ rule, dtype, count: 2, accumulate: 'buffer' }), 'a buffer').toBe(one);
    for (const moved of short ? [2] : [1, 2]) expect(await trained({ rule, dtype, moved }), `resumed after ${moved}`).toBe(one);
    const untied = { rule, dtype, config: { tie_word_embeddings: false } };
    const whole = await trained(untied);
    for (const height of [64, 128]) expect(await trained({ ...untied, threads: 1, tileBytes: height * 64 * 4 }), `tiles of ${height}`).toBe(whole);
    expect(await trained({ ...untied, rounding: 'nearest' })).not.toBe(whole);
  });
});
