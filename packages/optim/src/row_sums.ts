// What an update did to the rows of a parameter, as sums: the definition of what kernels add up for telemetry.
import type { View } from '@lomo/tensor';
import { fromBf16, fromF16, matrixOf, toBf16, toF16 } from '@lomo/tensor';

/**
 * Columns of the rows' sums, f32 [rows, 8]. Of every element: p before, p' as the rule computed it in f32, q what was stored; the intended
 * movement is d = p' - p, the applied one a = q - p; g is the gradient, unscaled, before any clip.
 */
export const rowColumns = {
  /** How many elements have other bits than before. */
  changed: 0,
  /** Sum of |d|. */
  intended: 1,
  /** Sum of a sign(d): how far the row went where it was meant to go. */
  applied: 2,
  /** Sum of (a - d)^2. */
  error2: 3,
  /** Sum of d^2. */
  intended2: 4,
  /** Sum of a^2. */
  applied2: 5,
  /** Sum of p^2. */
  weight2: 6,
  /** Sum of g^2. */
  gradient2: 7,
} as const;

/** Numbers a row. */
export const rowWidth = 8;

/** One element of an update, as the sums see it. */
export interface Movement {
  readonly before: number;
  /** What the rule computed; null where nobody knows. */
  readonly next: number | null;
  readonly stored: number;
  readonly g: number;
}

/** Writes the rows' sums of `shape`'s elements into `sums` [rows, 8]. */
export function writeRowSums(sums: View, shape: readonly number[], element: (i: number) => Movement): void {
  const [rows, k] = matrixOf(shape);
  for (let r = 0; r < rows; r++) {
    const total = new Float64Array(rowWidth);
    for (let j = 0; j < k; j++) {
      const { before, next, stored, g } = element(r * k + j);
      const a = stored - before;
      const d = next === null ? 0 : next - before;
      total[rowColumns.changed]! += Object.is(stored, before) ? 0 : 1;
      total[rowColumns.intended]! += Math.abs(d);
      total[rowColumns.applied]! += a * Math.sign(d);
      total[rowColumns.error2]! += next === null ? 0 : (stored - next) ** 2;
      total[rowColumns.intended2]! += d * d;
      total[rowColumns.applied2]! += a * a;
      total[rowColumns.weight2]! += before * before;
      total[rowColumns.gradient2]! += g * g;
    }
    sums.data.set(total, r * rowWidth);
  }
}

/** `value` as `p` holds it: rounded to nearest even. */
export function asStored(value: number, p: View): number {
  if (p.dtype === 'bf16') return fromBf16(toBf16(value));
  if (p.dtype === 'f16') return fromF16(toF16(value));
  return p.data instanceof Float32Array ? Math.fround(value) : value;
}
