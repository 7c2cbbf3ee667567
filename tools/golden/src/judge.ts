// The bars: which error of a comparison is allowed, from the file's own float32 distance or from what float64 must reach. One source.
import { Comparison, largestOf } from './compare.ts';
import type { FileDistance } from './format.ts';
import type { Row } from './row.ts';
import { compared, failed } from './row.ts';

/** A float32 implementation may be this many times as far from the golden value as PyTorch's own float32 run. */
export const float32Factor = 4;
/** A float64 implementation stays within this share of a tensor's largest value: the rounding of the file. */
export const float64Bar = 1e-7;

/**
 * Distances the golden README measured, for the few values that carry no distance of their own: mean losses of accumulated steps, weights
 * after one step where there is no trajectory of that run, gradient norms and logits where no forward.json lies beside.
 */
export const measured = {
  loss: 4.5e-7,
  gradients: { max_abs: 1.1e-6, max_rel: 7.7e-6, rel_l2: 2.5e-6 },
  logits: { max_abs: 2.9e-5, max_rel: 1.3e-6, rel_l2: 3.6e-7 },
  weightsAfterOneStep: { max_abs: 1.9e-7, max_rel: 1e-7, rel_l2: 4e-8 },
  adamwWeights: { max_abs: 5.1e-5, max_rel: 4.1e-5, rel_l2: 1.9e-6 },
} as const satisfies Record<string, number | FileDistance>;

/** Largest of each figure over several float32 runs. */
export function farthest(distances: readonly FileDistance[]): FileDistance {
  const of = (field: keyof FileDistance): number => Math.max(...distances.map((d) => d[field]));
  return { max_abs: of('max_abs'), max_rel: of('max_rel'), rel_l2: of('rel_l2') };
}

/** Judges numbers computed in `precision`. */
export class Judge {
  readonly precision: 'float32' | 'float64';

  constructor(precision: 'float32' | 'float64') {
    this.precision = precision;
  }

  /** Tensors by their largest relative error; with `l2` also by rel_l2. */
  tensors(name: string, comparison: Comparison, options: { readonly distance: FileDistance; readonly l2?: boolean }): Row[] {
    const { distance, l2 = false } = options;
    const row = compared(name, { error: comparison.maxRel, bar: this.bar(distance.max_rel), measure: 'max_rel', note: comparison.worst });
    if (!l2) return [row];
    return [row, compared(`${name}, all as one`, { error: comparison.relL2, bar: this.bar(distance.rel_l2), measure: 'rel_l2', note: `${comparison.count} elements` })];
  }

  /**
   * Losses by their largest absolute error. For a single one, float32 may also be as far off as the README measured for a mean loss: the
   * file's own distance is then that of one number, which lands next to the float64 value by luck.
   */
  losses(name: string, pair: { readonly got: ArrayLike<number>; readonly want: ArrayLike<number> }, distance: number): Row {
    const { got, want } = pair;
    if (got.length !== want.length) return failed(name, `${got.length} losses here, ${want.length} in the file`);
    const largest = largestOf(want);
    const at = farthestIndex(pair);
    const note = want.length === 1 ? '' : `element ${at} of ${want.length}`;
    const error = want.length === 0 ? Infinity : nanFar(Math.abs(got[at]! - want[at]!));
    if (this.precision === 'float64') return compared(name, { error: error === 0 ? 0 : error / largest, bar: float64Bar, measure: 'max_rel', note });
    const least = want.length === 1 ? measured.loss : 0;
    return compared(name, { error, bar: float32Factor * Math.max(distance, least), measure: 'max_abs', note });
  }

  /** A series of norms or coefficients as one tensor: its largest error for its largest value. */
  series(name: string, pair: { readonly got: ArrayLike<number>; readonly want: ArrayLike<number> }, distance: number): Row {
    const comparison = new Comparison();
    comparison.add(name, pair);
    const at = farthestIndex(pair);
    return compared(name, { error: comparison.maxRel, bar: this.bar(distance), measure: 'max_rel', note: `element ${at} of ${pair.want.length}` });
  }

  /** Norms and coefficients by the largest relative error of any one. */
  relative(name: string, pairs: readonly { readonly name: string; readonly got: number; readonly want: number }[], distance: number): Row {
    let [error, note] = [-1, ''];
    for (const pair of pairs) {
      const one = pair.got === pair.want ? 0 : nanFar(Math.abs(pair.got - pair.want) / Math.abs(pair.want));
      if (one > error) [error, note] = [one, pair.name];
    }
    return error < 0 ? failed(name, 'the file has no value to compare') : compared(name, { error, bar: this.bar(distance), measure: 'relative', note });
  }

  private bar(distance: number): number {
    return this.precision === 'float64' ? float64Bar : float32Factor * distance;
  }
}

function nanFar(x: number): number {
  return Number.isNaN(x) ? Infinity : x;
}

function farthestIndex({ got, want }: { readonly got: ArrayLike<number>; readonly want: ArrayLike<number> }): number {
  let [at, worst] = [0, -1];
  for (let i = 0; i < want.length; i++) {
    const d = nanFar(Math.abs(got[i]! - want[i]!));
    if (d > worst) [at, worst] = [i, d];
  }
  return at;
}

/** A named list of numbers against another by name; a name missing on either side throws. */
export function pairs(got: ReadonlyMap<string, number>, want: Readonly<Record<string, number>>): { readonly name: string; readonly got: number; readonly want: number }[] {
  const names = Object.keys(want);
  if (names.length !== got.size) throw new Error(`the file names ${names.length} tensors, the model has ${got.size}`);
  return names.map((name) => {
    const value = got.get(name);
    if (value === undefined) throw new Error(`the file names ${name}, which is not a tensor of the model`);
    return { name, got: value, want: want[name]! };
  });
}
