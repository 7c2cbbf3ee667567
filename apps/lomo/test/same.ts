// What a run computes, and in how many ways it can be computed: the ways must not show. Axes, products of them, covering arrays, digests.
import { createHash } from 'node:crypto';
import { cpu } from '@lomo/cpu';
import { adalomo, adamw, lomo, sgd } from '@lomo/optim';
import type { Clip, Rule, Spill, SpillStore } from '@lomo/optim';
import type { Backend } from '@lomo/tensor';
import { cut, small } from './small.ts';

const rules: Readonly<Record<string, Rule>> = { lomo, adalomo: adalomo(), adamw: adamw(), sgd };
/** Each tight enough to bite. Global ones differ in how the norm is known before the first update. */
const clips: Readonly<Record<string, Clip | null>> = {
  none: null, value: { value: 2e-4 }, parameter: { norm: 0.05, scope: 'parameter' }, 'global, two-pass': { norm: 0.5 }, 'global, memory': { norm: 0.5 }, 'global, store': { norm: 0.5 },
};
/** Micro-batches a step, and how they add up. */
const splits: Readonly<Record<string, { readonly count: number; readonly accumulate: 'factors' | 'buffer' }>> = {
  one: { count: 1, accumulate: 'buffer' }, '2 factors': { count: 2, accumulate: 'factors' }, '2 buffer': { count: 2, accumulate: 'buffer' },
  '4 factors': { count: 4, accumulate: 'factors' }, '4 buffer': { count: 4, accumulate: 'buffer' }, '16 factors': { count: 16, accumulate: 'factors' },
};
/** Largest gradient tile in rows of 64 f32; 0: the default, larger than any matrix here. */
const tiles = [0, 64, 176] as const;
/** Tokens of a step: every split but the one into 16 has whole chunks of 512. */
const tokens = 2048;
const steps = 2;

/** Every axis with its values; the first value of those after `head` is the reference's way. */
export const axes = {
  rule: ['lomo', 'adalomo', 'adamw', 'sgd'],
  dtype: ['f32', 'bf16', 'f16'],
  rounding: ['stochastic', 'nearest'],
  clip: Object.keys(clips),
  head: ['tiles', 'chunks'],
  split: Object.keys(splits),
  threads: [2, 1, 4],
  tile: tiles,
  tapes: ['recomputed', 'kept'],
} as const satisfies Readonly<Record<string, readonly (string | number)[]>>;
export type Axes = Readonly<Record<keyof typeof axes, string | number>>;

/** The way that another way of the same computation is held against; undefined where `row` cannot be: token chunks of the head need whole chunks. */
export function referenceOf(row: Axes): Axes | undefined {
  const { count } = splits[row.split]!;
  if (row.head === 'chunks' && (tokens / count) % 512 !== 0) return undefined;
  const clip = String(row.clip).startsWith('global') ? 'global, two-pass' : row.clip;
  return { ...row, clip, split: axes.split[0]!, threads: axes.threads[0], tile: axes.tile[0], tapes: axes.tapes[0] };
}

/** True where rounding has nothing to choose from: f32 weights are listed once. */
export function isRepeated({ dtype, rounding }: Axes): boolean {
  return dtype === 'f32' && rounding === 'nearest';
}

/** Runs rows, each on a device of its own, and remembers the references' digests. */
export class Digests implements AsyncDisposable {
  private readonly backends = new Map<number, Backend>();
  private readonly known = new Map<string, string>();
  private readonly make: (threads: number) => Backend;

  /** `make`: the backend for a count of threads; the CPU's unless given. */
  constructor(make: (threads: number) => Backend = (threads) => cpu({ threads })) {
    this.make = make;
  }

  /** One backend for each count of threads. */
  backend(threads: number): Backend {
    const known = this.backends.get(threads) ?? this.make(threads);
    this.backends.set(threads, known);
    return known;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const backend of this.backends.values()) await backend[Symbol.asyncDispose]();
  }

  /** What has been computed of references, by their words. */
  get references(): ReadonlyMap<string, string> {
    return this.known;
  }

  async reference(row: Axes): Promise<string> {
    const key = wordsOf(row);
    const known = this.known.get(key) ?? (await this.of(row));
    this.known.set(key, known);
    return known;
  }

  /** SHA-256 of losses, norms, all weights and all optimizer state after a few steps. */
  async of(row: Axes): Promise<string> {
    const { count, accumulate } = splits[row.split]!;
    const clip = clips[row.clip]!;
    const spill: Spill | null = row.clip === 'global, memory' ? 'memory' : row.clip === 'global, store' ? bytesStore() : null;
    const rows = Number(row.tile);
    const { device, model, optimizer, program } = small(this.backend(Number(row.threads)), {
      rule: rules[row.rule]!, dtype: row.dtype as 'f32', rounding: row.rounding as 'nearest', keeps: row.tapes === 'kept', headForm: row.head as 'tiles', accumulate,
      microBatches: count, tokens: tokens / count, ...(clip === null ? {} : { clip }), ...(spill === null ? {} : { spill }), ...(rows === 0 ? {} : { tileBytes: rows * 64 * 4 }),
    });
    const hash = createHash('sha256');
    for (let step = 1; step <= steps; step++) {
      const { loss, gradNorm } = await program.run({ step, seed: 1, lr: 0.02, batches: cut(tokens, count, { seed: step }), passes: optimizer.passes });
      hash.update(new Uint8Array(Float64Array.of(loss, gradNorm).buffer));
    }
    for (const tensor of [...model.parameters, ...[...optimizer.state()].map((state) => state.tensor)]) hash.update(new Uint8Array((await device.read(tensor)).buffer));
    device.free();
    return hash.digest('hex');
  }
}

/** 'lomo, bf16, stochastic, none, tiles, 4 factors, 1, 64, kept' */
export function wordsOf(row: Axes): string {
  return Object.keys(axes).map((axis) => row[axis as keyof Axes]).join(', ');
}

/** Every combination of the axes' values, the last axis fastest. */
export function product<R = Axes>(of: Readonly<Record<string, readonly (string | number)[]>> = axes): R[] {
  let rows: Record<string, string | number>[] = [{}];
  for (const [axis, values] of Object.entries(of)) rows = rows.flatMap((row) => values.map((value) => ({ ...row, [axis]: value })));
  return rows as unknown as R[];
}

/**
 * Few rows in which every two values of different axes meet, where `allowed` lets them: greedy, in a fixed order. Each row takes, of all
 * candidates, one that shows most pairs not seen yet.
 */
export function coveringArray<R extends Readonly<Record<string, string | number>> = Axes>(allowed: (row: R) => boolean, of: Readonly<Record<keyof R & string, readonly (string | number)[]>> = axes as never): { readonly rows: readonly R[]; readonly pairs: number } {
  const names = Object.keys(of) as (keyof R & string)[];
  // Every value of every axis has a number below 64; a pair is two of them.
  const numbers = new Map(names.flatMap((name) => of[name].map((value) => `${name} ${value}`)).map((value, i) => [value, i]));
  const pairsOf = (row: R): number[] => {
    const values = names.map((name) => numbers.get(`${name} ${row[name]}`)!);
    return values.flatMap((a, i) => values.slice(i + 1).map((b) => 64 * a + b));
  };
  const candidates = product<R>(of).filter(allowed).map((row) => ({ row, pairs: pairsOf(row) }));
  const missing = new Set(candidates.flatMap(({ pairs }) => pairs));
  const all = missing.size;
  const rows: R[] = [];
  while (missing.size > 0) {
    let [best, most] = [candidates[0]!, 0];
    for (const candidate of candidates) {
      let fresh = 0;
      for (const pair of candidate.pairs) if (missing.has(pair)) fresh++;
      if (fresh > most) [best, most] = [candidate, fresh];
    }
    for (const pair of best.pairs) missing.delete(pair);
    rows.push(best.row);
  }
  return { rows, pairs: all };
}

/** Bytes of this process as a store. */
function bytesStore(): SpillStore {
  const pieces = new Map<number, Uint8Array>();
  return {
    write: async (from, position) => void pieces.set(position, from.slice()),
    read: async (into, position) => into.set(pieces.get(position)!.subarray(0, into.byteLength)),
  };
}
