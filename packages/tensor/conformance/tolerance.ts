// How far a kernel may be from the float64 definition, element by element, and why.
import { numel } from '../src/index.ts';
import type { DType } from '../src/index.ts';

/** Half a unit in the last place of f32, relative. */
const f32Unit = 2 ** -24;

/** Mantissa bits and least normal exponent of the 16-bit dtypes. */
const narrow = { bf16: { bits: 7, least: -126 }, f16: { bits: 10, least: -14 } } as const;

export interface Bar {
  readonly dtype: DType;
  /** Largest finite magnitude of the wanted tensor. */
  readonly magnitude: number;
  /** Terms that one output element sums, or operations that made it. */
  readonly length: number;
  /** True where a random word decides between two neighbours: a threshold computed in f32 may fall on the other side. */
  readonly stochastic: boolean;
  /** Magnitude of intermediate values that may have been rounded to `dtype` where that has 16 bits. */
  readonly rounded: number;
}

/**
 * Operations an output element costs: FLOPs over the size of the largest tensor written. For sums that is twice their length, for
 * elementwise kernels the few operations of one element.
 */
export function lengthOf(flops: number, written: readonly { readonly shape: readonly number[] }[]): number {
  return Math.max(1, flops / Math.max(1, ...written.map((t) => numel(t.shape))));
}

/**
 * The absolute error allowed where `want` is wanted.
 * - i32 and u8: 0. Ids, gates and counters have no rounding.
 * - f32: every one of `length` operations may round once against the tensor's largest magnitude (partial sums may be larger than the sum
 *   that remains, which the factor 2 covers), and 16 units cover exp, log, sin, division and reciprocal roots.
 * - bf16, f16: arithmetic is f32, so the same, and half a unit of the 16-bit result for its one rounding; a whole unit where rounding is
 *   stochastic. Half a unit of `rounded` besides.
 */
export function allowed(want: number, bar: Bar): number {
  if (bar.dtype === 'i32' || bar.dtype === 'u8') return 0;
  const accumulated = f32Unit * (16 + 2 * bar.length) * bar.magnitude;
  if (bar.dtype === 'f32') return accumulated;
  const { bits, least } = narrow[bar.dtype];
  // The computed value may lie in the next binade, where units are larger.
  const exponent = Math.max(least, Math.floor(Math.log2(Math.abs(want) + accumulated + Number.MIN_VALUE)));
  return accumulated + 2 ** (exponent - bits) * (bar.stochastic ? 1 : 0.5) + 2 ** (-bits - 1) * bar.rounded;
}

/** |got - want| where both are numbers; 0 for equal infinities and for two NaNs; Infinity where only one is finite. */
export function distance(got: number, want: number): number {
  if (Object.is(got, want) || got === want || (Number.isNaN(got) && Number.isNaN(want))) return 0;
  const d = Math.abs(got - want);
  return Number.isFinite(d) ? d : Infinity;
}
