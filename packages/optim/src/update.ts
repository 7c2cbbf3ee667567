// What every update kernel shares: unscale, clip, the gate, decay, rounding, in the order of the LOMO paper's algorithm.
import type { View } from '@lomo/tensor';
import { closeGate } from '@lomo/tensor';
import { randomWord, roundStochastic } from './rounding.ts';
import { asStored, writeRowSums } from './row_sums.ts';

/** Attributes of kernels that write a parameter. */
export type UpdateAttributes = {
  /** Names the parameter in the random stream. */
  readonly key: number;
  /** Global index of the tile's first element. */
  readonly element: number;
  /** What the gate notes when this update closes it. */
  readonly index: number;
  readonly weightDecay: number;
  /** 0: no clipping by value. */
  readonly clipValue: number;
  /** 0 nearest, 1 stochastic. */
  readonly rounding: number;
};

export const updateAttributes = ['key', 'element', 'index', 'weightDecay', 'clipValue', 'rounding'] as const;

/** Indices into the step's scalars and counters. */
export const scalar = { lr: 0, coefficient: 2, lossScale: 3 } as const;

/** g unscaled, clipped by value, then by the step's coefficient. */
export function shapedGradient(g: number, scalars: View, clipValue: number): number {
  const unscaled = g / scalars.data[scalar.lossScale]!;
  const clamped = clipValue > 0 ? Math.min(clipValue, Math.max(-clipValue, unscaled)) : unscaled;
  return clamped * scalars.data[scalar.coefficient]!;
}

/** True while updates may write; with `check`, a non-finite g closes the gate first. */
export function mayWrite(g: View, counters: View, options: { readonly check: number; readonly index: number }): boolean {
  if (options.check && !g.data.every((x: number) => Number.isFinite(x))) closeGate(counters, options.index);
  return counters.data[3] === 0;
}

/** What telemetry needs of an update: the gradient before any clip, its scale, and where the rows' sums go. */
export interface Measure {
  readonly g: View;
  readonly scalars: View;
  readonly sums: View;
}

/** Null where there is nowhere to leave sums: the step is not measured. */
export function measureOf({ g, scalars, sums }: { readonly g: View; readonly scalars: View; readonly sums: View | undefined }): Measure | null {
  return sums === undefined ? null : { g, scalars, sums };
}

/**
 * Writes p[i] = round(value(i)) for every element of the tile, and with `measure` the sums of its rows. A value that f16 does not reach,
 * whichever way it would be rounded, closes the gate before anything is written.
 */
export function writeRounded(p: View, counters: View, options: UpdateAttributes & { readonly value: (i: number) => number; readonly measure?: Measure | null }): void {
  const seed = [counters.data[1]! >>> 0, counters.data[2]! >>> 0] as const;
  const next = Float64Array.from(p.data, (_, i) => options.value(i));
  if (p.dtype === 'f16' && next.some((v) => !(Math.abs(v) <= 65504))) closeGate(counters, options.index);
  if (counters.data[3] !== 0) return;
  const values = next.map((value, i) => {
    if (options.rounding !== 1) return value;
    const word = randomWord({ seed, key: options.key, step: counters.data[0]!, element: options.element + i });
    return roundStochastic(value, p.dtype, word);
  });
  const measure = options.measure ?? null;
  if (measure !== null) {
    const { g, scalars, sums } = measure;
    const scale = scalars.data[scalar.lossScale]!;
    writeRowSums(sums, g.shape, (i) => {
      const stored = asStored(values[i]!, p);
      return { before: p.data[i]!, next: p.dtype === 'f32' ? stored : next[i]!, stored, g: g.data[i]! / scale };
    });
  }
  p.data.set(values);
}
