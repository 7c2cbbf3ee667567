// Rounding of updated weights to 16 bits: to nearest, or stochastic and exact in expectation (arXiv 2502.20566).
import type { DType } from '@lomo/tensor';
import { philox, fromBf16, fromF16, toBf16, toF16 } from '@lomo/tensor';

export type Rounding = 'nearest' | 'stochastic';

/** How kernels spell it. */
export const roundingCode = { nearest: 0, stochastic: 1 } as const satisfies Record<Rounding, number>;

/** Where a random word comes from: the step's seed and number, the parameter's key, the element's global index. */
export interface RandomPlace {
  readonly seed: readonly [low: number, high: number];
  readonly key: number;
  readonly step: number;
  readonly element: number;
}

/** The 32 random bits of one element: word (element mod 4) of Philox block (element / 4). */
export function randomWord(place: RandomPlace): number {
  const block = Math.floor(place.element / 4);
  const words = philox(
    [place.seed[0] >>> 0, (place.seed[1] ^ place.key) >>> 0],
    [block >>> 0, Math.floor(block / 2 ** 32), place.step >>> 0, 0],
  );
  return words[place.element % 4]!;
}

/**
 * `x` rounded to a neighbour that `dtype` holds, away from zero with the probability of its distance from the nearer one: in expectation
 * `x` itself. f32 and infinities stay as they are. The word is read as kernels read it: its low bits, as many as f32 has below the kept
 * ones (16 for bf16, 13 for f16), are added to the dropped fraction, which carries or does not; the other bits follow as further digits,
 * so that values finer than f32 keep their expectation. Below f16's normals the whole word is compared with the fraction.
 */
export function roundStochastic(x: number, dtype: DType, word: number): number {
  if ((dtype !== 'bf16' && dtype !== 'f16') || !Number.isFinite(x)) return x;
  const [to, from, dropped] = dtype === 'bf16' ? ([toBf16, fromBf16, 16] as const) : ([toF16, fromF16, 13] as const);
  const magnitude = Math.abs(x);
  let bits = to(magnitude);
  if (from(bits) > magnitude) bits--;
  const low = from(bits);
  const high = from(bits + 1);
  if (low === magnitude) return x;
  const top = Number.isFinite(high) ? high : 2 * low - from(bits - 1);
  const fraction = (magnitude - low) / (top - low);
  const rotated = ((word << (32 - dropped)) | (word >>> dropped)) >>> 0;
  const away = dtype === 'f16' && magnitude < 2 ** -14 ? unit(word) < fraction : fraction + unit(rotated) >= 1;
  return Math.sign(x) * (away ? high : low);
}

/** A word as a number in (0, 1). */
function unit(word: number): number {
  return (word + 0.5) / 2 ** 32;
}
