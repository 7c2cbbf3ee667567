// Distances between computed and golden tensors, as the golden README defines them, and its samples of tensors.

/** Numbers by tensor name. */
export type Tensors = ReadonlyMap<string, ArrayLike<number>>;

/** How far computed tensors are from golden ones. */
export class Comparison {
  /** Largest |got - want|. */
  maxAbs = 0;
  /** Largest over tensors of max|got - want| / max|want|. */
  maxRel = 0;
  /** The tensor of `maxRel`. */
  worst = '';
  /** Elements compared. */
  count = 0;
  private difference2 = 0;
  private want2 = 0;

  /** Adds a tensor; `largest` stands for max|want| where `want` is only a sample. Throws when the lengths differ. */
  add(name: string, pair: { readonly got: ArrayLike<number>; readonly want: ArrayLike<number> }, largest?: number): void {
    const { got, want } = pair;
    if (got.length !== want.length) throw new Error(`${name} has ${got.length} elements here and ${want.length} in the file`);
    let [difference, size] = [0, 0];
    for (let i = 0; i < want.length; i++) {
      const b = want[i]!;
      const d = finite(Math.abs(got[i]! - b));
      difference = Math.max(difference, d);
      size = Math.max(size, Math.abs(b));
      this.difference2 += d * d;
      this.want2 += b * b;
    }
    this.count += want.length;
    this.maxAbs = Math.max(this.maxAbs, difference);
    const relative = difference === 0 ? 0 : difference / Math.max(size, largest ?? 0);
    if (relative > this.maxRel || this.worst === '') {
      this.maxRel = relative;
      this.worst = name;
    }
  }

  /** |got - want| / |want|, all tensors taken as one vector. */
  get relL2(): number {
    return this.difference2 === 0 ? 0 : finite(Math.sqrt(this.difference2 / this.want2));
  }
}

/** A NaN is infinitely far from everything. */
function finite(x: number): number {
  return Number.isNaN(x) ? Infinity : x;
}

/** Element i of a sample of `count` is element (13 + 7919 i) mod numel of the flattened tensor. */
export function sampleOf(values: ArrayLike<number>, count: number): Float64Array {
  const size = values.length;
  if (count > size) throw new Error(`a sample of ${count} elements of a tensor of ${size}`);
  return Float64Array.from({ length: count }, (_, i) => values[(13 + 7919 * i) % size]!);
}

/** Largest magnitude. */
export function largestOf(values: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]!));
  return largest;
}

/** L2 norm. */
export function normOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum);
}

/**
 * Compares computed whole tensors with golden ones, which are whole or samples: samples are flat, all of them. Both must name the same
 * tensors.
 */
export function compareAll(got: Tensors, want: ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: ArrayLike<number> }>): Comparison {
  const comparison = new Comparison();
  const absent = [...got.keys()].filter((name) => !want.has(name));
  if (absent.length > 0) throw new Error(`the file has no ${absent[0]} (and ${absent.length - 1} more of ${got.size} tensors)`);
  const whole = [...want.values()].some(({ shape }) => shape.length > 1);
  for (const [name, { values }] of want) {
    const ours = got.get(name);
    if (ours === undefined) throw new Error(`the file has ${name}, which is not a tensor of the model`);
    if (whole) comparison.add(name, { got: ours, want: values });
    else comparison.add(name, { got: sampleOf(ours, values.length), want: values }, largestOf(ours));
  }
  if (comparison.count === 0) throw new Error('the file has no tensor to compare');
  return comparison;
}
