// A parameter's gradient: an ordered list of terms, turned into f32 tiles only when somebody looks, freed when it is consumed.
import type { Category } from './allocator.ts';
import type { Device } from './device.ts';
import { LomoError } from './errors.ts';
import { addInto } from './ops/add.ts';
import { fill } from './ops/fill.ts';
import { matrixOf, numel } from './shape.ts';
import type { Tensor } from './tensor.ts';

/** Rows [from, to) of a gradient seen as a matrix. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** One contribution to a gradient. Terms own shares of what they read and give them back in `release`. */
export interface Term {
  /** Writes (`add` false) or adds this term's rows from `row` on into `tile`, f32 [rows, columns]. */
  into(tile: Tensor, row: number, add: boolean): void;
  /** The same term with its operands copied into row `at` of stores of `count` micro-batches, so that all of them make one sum. */
  store?(stores: FactorStores, at: number, count: number): Term;
  /** Tiles must be multiples of this many rows (the last one excepted), so that the term's own sums do not depend on tile sizes. */
  readonly granularity?: number;
  /** An f32 tensor that already holds the term's value, or null. */
  whole(): Tensor | null;
  /** What the term is made of, where that may be smaller than the gradient. */
  compact?(): Compact;
  release(): void;
}

/** A term taken apart. */
export interface Compact {
  /** Borrowed. */
  readonly operands: readonly Tensor[];
  /** The term again, from tensors of the same specs and values, which it takes over. */
  remake(operands: readonly Tensor[]): Term;
}

/** Where kept factors live until the parameter settles. */
export interface FactorStores {
  /** Copies a gradient: its bytes may change after this. */
  keep(operand: Tensor, at: number, count: number): Tensor;
  /** Copies a saved activation, which no one writes: the x of q, k and v share one store. */
  keepSaved(operand: Tensor, at: number, count: number): Tensor;
}

/** An f32 tensor of the parameter's shape. */
export class Dense implements Term {
  private readonly value: Tensor;

  /** Takes over `value`. */
  constructor(value: Tensor) {
    this.value = value;
  }

  into(tile: Tensor, row: number, add: boolean): void {
    const [rows, columns] = matrixOf(this.value.shape);
    const part = this.value.reshape([rows, columns]).rows(row, row + tile.shape[0]!);
    if (add) addInto(tile, part);
    else tile.device.copy(tile, part);
  }

  whole(): Tensor {
    return this.value;
  }

  release(): void {
    this.value.dispose();
  }
}

/** A gradient, lazy and consumed once. */
export class Grad {
  readonly device: Device;
  readonly shape: readonly number[];
  readonly terms: readonly Term[];
  private cached: Tensor | null = null;

  constructor(device: Device, shape: readonly number[], terms: readonly Term[]) {
    this.device = device;
    this.shape = shape;
    this.terms = terms;
  }

  /** This gradient followed by `later`: the order of terms is the order of the sum. */
  add(later: Grad): Grad {
    return new Grad(this.device, this.shape, [...this.terms, ...later.terms]);
  }

  /**
   * Visits the gradient in f32 row tiles [rows, columns], ascending. A tile is at most `device.tileBytes` large and lives until the
   * visit returns; a gradient of one tile is computed once however often it is visited, one of several anew each time.
   */
  tiles(visit: (tile: Tensor, range: Range) => void): void {
    const [rows, columns] = matrixOf(this.shape);
    const whole = this.cached ?? (this.terms.length === 1 ? this.terms[0]!.whole() : null);
    const height = this.height(rows, columns);
    for (let from = 0; from < rows; from += height) {
      const to = Math.min(rows, from + height);
      if (whole !== null) {
        visit(whole.reshape([rows, columns]).rows(from, to), { from, to });
        continue;
      }
      const tile = this.compute(from, to, columns, 'gradient');
      visit(tile, { from, to });
      if (height >= rows) this.cached = tile;
      else tile.dispose();
    }
  }

  /** True when `tiles` visits the whole gradient at once. */
  get single(): boolean {
    const [rows, columns] = matrixOf(this.shape);
    return this.height(rows, columns) >= rows;
  }

  /** The whole gradient, f32, of the parameter's shape; the caller owns the handle. */
  value(): Tensor {
    const [rows, columns] = matrixOf(this.shape);
    const whole = this.cached ?? (this.terms.length === 1 ? this.terms[0]!.whole() : null);
    if (whole !== null) return whole.reshape(this.shape).share();
    const tensor = this.device.allocate({ shape: this.shape, dtype: 'f32' }, 'gradient');
    this.write(tensor.reshape([rows, columns]), 0);
    return tensor;
  }

  /** Writes rows from `row` on into `tile`, f32 [rows, columns]. */
  write(tile: Tensor, row: number): void {
    if (this.terms.length === 0) fill(tile, 0);
    this.terms.forEach((term, i) => term.into(tile, row, i > 0));
  }

  /** Gives back everything the gradient holds. */
  release(): void {
    this.cached?.dispose();
    this.cached = null;
    for (const term of this.terms) term.release();
  }

  private height(rows: number, columns: number): number {
    const height = this.device.tileRows(rows, columns);
    const granularity = Math.max(1, ...this.terms.map((term) => term.granularity ?? 1));
    return height >= rows ? rows : Math.max(granularity, height - (height % granularity));
  }

  private compute(from: number, to: number, columns: number, category: Category): Tensor {
    const tile = this.device.allocate({ shape: [to - from, columns], dtype: 'f32' }, category);
    this.write(tile, from);
    return tile;
  }
}

/** A gradient that is zero everywhere. */
export function zeroGrad(device: Device, shape: readonly number[]): Grad {
  if (numel(shape) === 0) throw new LomoError('ShapeError', 'a parameter has no elements', { shape });
  return new Grad(device, shape, []);
}
