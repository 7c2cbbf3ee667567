// The ledger of one backward pass: who still reads a parameter, what its gradient has collected, and the moment it settles.
import type { Device } from './device.ts';
import { LomoError } from './errors.ts';
import type { FactorStores, Term } from './grad.ts';
import { Dense, Grad } from './grad.ts';
import { fill } from './ops/fill.ts';
import { sumsValue } from './ops/token_sum.ts';
import { matrixOf } from './shape.ts';
import type { Parameter, Tensor } from './tensor.ts';
import type { Block } from './allocator.ts';

/** How micro-batches add up to one gradient. Both give the bits of one large batch; see docs/how-lomo-works.md for when. */
export type Accumulation = 'factors' | 'buffer';

export interface LedgerOptions {
  readonly microBatches: number;
  readonly accumulate: Accumulation;
  /** Called once for every parameter, when nothing will read it again in this pass. `order` counts settles from 0. */
  settle(parameter: Parameter, grad: Grad, order: number): void;
}

/** A running token sum, and the gradient term it is. */
class TokenSums implements Term {
  readonly sums: Tensor;

  constructor(sums: Tensor) {
    this.sums = sums;
  }

  into(tile: Tensor, row: number, add: boolean): void {
    if (row !== 0 || add) {
      tile.device.scope(() => {
        const value = sumsValue(this.sums);
        new Dense(value).into(tile, row, add);
      });
      return;
    }
    sumsValue(this.sums, tile);
  }

  whole(): null {
    return null;
  }

  release(): void {
    this.sums.dispose();
  }
}

interface Entry {
  holds: number;
  settled: boolean;
  readonly terms: Term[];
  readonly sites: Map<string, Term>;
  buffer: Tensor | null;
}

/** One backward pass over M micro-batches. */
export class Ledger {
  private readonly device: Device;
  private readonly options: LedgerOptions;
  private readonly entries = new Map<Parameter, Entry>();
  private readonly stores = new Map<string, Tensor[]>();
  private order = 0;

  constructor(device: Device, options: LedgerOptions) {
    this.device = device;
    this.options = options;
  }

  /** Parameters that have settled so far. */
  get settled(): number {
    return this.order;
  }

  /** Announces a read to come. */
  hold(parameter: Parameter): void {
    if (!parameter.trainable) return;
    const entry = this.entry(parameter);
    if (entry.settled) throw new LomoError('SettledTooEarly', `${parameter.path} is read after it settled`, { path: parameter.path });
    entry.holds++;
  }

  /** True when one read is left and no other micro-batch's part is missing or waiting. */
  endsWith(parameter: Parameter): boolean {
    const entry = this.entries.get(parameter);
    return this.options.microBatches === 1 && entry !== undefined && entry.holds === 1 && entry.terms.length === 0;
  }

  /** Takes one announced read back; at zero the parameter settles. */
  release(parameter: Parameter): void {
    if (!parameter.trainable) return;
    const entry = this.entry(parameter);
    if (entry.holds <= 0) throw new LomoError('LedgerError', `${parameter.path} was released more often than held`, { path: parameter.path });
    if (--entry.holds > 0) return;
    entry.settled = true;
    const grad = new Grad(this.device, parameter.shape, entry.terms);
    this.device.observer?.entered?.({ phase: 'settle', name: parameter.path });
    this.options.settle(parameter, grad, this.order++);
    this.device.observer?.left?.();
    parameter.version++;
    grad.release();
    entry.sites.clear();
  }

  /** The micro-batch walk `at` hands over a gradient found at `site`. Takes over the gradient's terms. */
  contribute(parameter: Parameter, grad: Grad, place: WalkPlace): void {
    const entry = this.entry(parameter);
    const { microBatches: count, accumulate } = this.options;
    if (count === 1) {
      entry.terms.push(...grad.terms);
      return;
    }
    const [rows, columns] = matrixOf(parameter.shape);
    grad.terms.forEach((term, i) => {
      if (accumulate === 'factors' && term.store !== undefined) {
        const site = `${place.site}.${i}`;
        const stored = term.store(place.stores, place.microBatch, count);
        if (!entry.sites.has(site)) {
          entry.sites.set(site, stored);
          entry.terms.push(stored);
        } else stored.release();
        term.release();
        return;
      }
      const { tensor, fresh } = this.accumulator(parameter);
      term.into(tensor.reshape([rows, columns]), 0, !fresh);
      term.release();
    });
  }

  /** The running token sum of `parameter` at `site`. */
  sums(parameter: Parameter, place: WalkPlace, rows: number): { sums: Tensor; start: number } {
    const entry = this.entry(parameter);
    let term = entry.sites.get(place.site);
    if (!(term instanceof TokenSums)) {
      const sums = this.device.allocate({ shape: [2, matrixOf(parameter.shape)[1]], dtype: 'f32' }, 'gradient', parameter.path);
      fill(sums, 0);
      term = new TokenSums(sums);
      entry.sites.set(place.site, term);
      entry.terms.push(term);
    }
    return { sums: (term as TokenSums).sums, start: place.microBatch * rows };
  }

  /** The dense accumulator of `parameter`, made at first use. */
  accumulator(parameter: Parameter): { tensor: Tensor; fresh: boolean } {
    const entry = this.entry(parameter);
    const fresh = entry.buffer === null;
    if (entry.buffer === null) {
      entry.buffer = this.device.allocate({ shape: parameter.shape, dtype: 'f32' }, 'gradient', parameter.path);
      entry.terms.push(new Dense(entry.buffer));
    }
    return { tensor: entry.buffer, fresh };
  }

  /** Where one walk through `stage` keeps factors: the sequence of stores is the same in every micro-batch. */
  factorStores(stage: string): FactorStores {
    const seen = new Map<Block, Map<number, Tensor>>();
    let next = 0;
    let stores = this.stores.get(stage);
    if (stores === undefined) this.stores.set(stage, (stores = []));
    const list = stores;
    const copy = (operand: Tensor, at: number, count: number): Tensor => {
      const index = next++;
      const height = operand.shape[0]!;
      let store = list[index];
      if (store === undefined) {
        store = this.device.allocate({ shape: [height * count, ...operand.shape.slice(1)], dtype: operand.dtype }, 'factors');
        list.push(store);
      }
      this.device.copy(store.rows(at * height, (at + 1) * height), operand);
      return store;
    };
    return {
      keep: copy,
      keepSaved: (operand, at, count) => {
        const known = seen.get(operand.block)?.get(operand.offset);
        if (known !== undefined) return known;
        const store = copy(operand, at, count);
        const byOffset = seen.get(operand.block);
        if (byOffset === undefined) seen.set(operand.block, new Map([[operand.offset, store]]));
        else byOffset.set(operand.offset, store);
        return store;
      },
    };
  }

  /** After the last walk of a stage: its stores now belong to the terms alone. */
  closeStores(stage: string): void {
    for (const store of this.stores.get(stage) ?? []) store.dispose();
    this.stores.delete(stage);
  }

  /** Throws NeverSettled unless every held parameter has settled. */
  finish(): void {
    for (const [parameter, entry] of this.entries) {
      if (!entry.settled) {
        throw new LomoError('NeverSettled', `${parameter.path} is still held by ${entry.holds} reads at the end of the step`, {
          path: parameter.path,
          holds: entry.holds,
        });
      }
    }
  }

  private entry(parameter: Parameter): Entry {
    let entry = this.entries.get(parameter);
    if (entry === undefined) {
      entry = { holds: 0, settled: false, terms: [], sites: new Map(), buffer: null };
      this.entries.set(parameter, entry);
    }
    return entry;
  }
}

/** Where in a pass a gradient was found. */
export interface WalkPlace {
  readonly microBatch: number;
  /** Names the call and its input; equal in every micro-batch. */
  readonly site: string;
  readonly stores: FactorStores;
}
