// Shapes: products, rows, comparisons.
import type { DType } from './dtype.ts';
import { sizeOf } from './dtype.ts';

/** Shape and element type of a tensor; tensors are contiguous and row-major. */
export interface Spec {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** Number of elements. */
export function numel(shape: readonly number[]): number {
  let n = 1;
  for (let i = 0; i < shape.length; i++) n *= shape[i]!;
  return n;
}

/** Bytes a tensor of this spec occupies. */
export function bytesOf(spec: Spec): number {
  return numel(spec.shape) * sizeOf(spec.dtype);
}

/** Dimension `dim`; negative counts from the end. Throws RangeError when the shape has no such dimension. */
export function dimOf(spec: { readonly shape: readonly number[] }, dim: number): number {
  const size = spec.shape.at(dim);
  if (size === undefined) throw new RangeError(`shape [${spec.shape.join(', ')}] has no dimension ${dim}`);
  return size;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** [rows, columns] of a tensor seen as a matrix: the last dimension against all others; a vector is one row. */
export function matrixOf(shape: readonly number[]): readonly [rows: number, columns: number] {
  const columns = shape.at(-1) ?? 1;
  return [shape.length < 2 ? 1 : numel(shape.slice(0, -1)), columns];
}
