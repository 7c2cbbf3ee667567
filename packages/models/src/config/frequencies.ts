// Inverse frequencies of RoPE as data, in double precision: every scaling is a formula here and nothing to the kernels.
import type { RopeConfig, RopeScaling } from './rope.ts';

/** `values[j]` radians a position for the pair (j, j + values.length) of a head; rotated elements are multiplied by `scale`. */
export interface InverseFrequencies {
  readonly values: Float64Array;
  readonly scale: number;
}

/**
 * The frequencies for sequences of up to `maxLength` tokens. 'dynamic' and 'longrope' depend on it: transformers picks anew whenever a
 * longer sequence arrives, a run of lomo has one length. Sources: transformers' modeling_rope_utils; the YaRN and LongRoPE papers.
 */
export function inverseFrequencies(rope: RopeConfig, maxLength: number): InverseFrequencies {
  const formula = formulas[rope.scaling.type] as (rope: RopeConfig, scaling: RopeScaling, maxLength: number) => InverseFrequencies;
  return formula(rope, rope.scaling, maxLength);
}

type Of<T extends RopeScaling['type']> = Extract<RopeScaling, { readonly type: T }>;

const formulas: { readonly [T in RopeScaling['type']]: (rope: RopeConfig, scaling: Of<T>, maxLength: number) => InverseFrequencies } = {
  default: (rope) => ({ values: powers(rope, rope.theta), scale: 1 }),

  linear: (rope, { factor }) => ({ values: powers(rope, rope.theta).map((f) => f / factor), scale: 1 }),

  dynamic: (rope, { factor }, maxLength) => {
    const { rotaryDim: d, maxPositions } = rope;
    const stretch = (factor * Math.max(maxLength, maxPositions)) / maxPositions - (factor - 1);
    return { values: powers(rope, rope.theta * stretch ** (d / (d - 2))), scale: 1 };
  },

  yarn: (rope, s) => {
    const { rotaryDim: d, theta } = rope;
    // The pair that turns `rotations` times over the original length, as a fractional index.
    const pairTurning = (rotations: number) => (d * Math.log(s.originalPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
    const [low, high] = [pairTurning(s.betaFast), pairTurning(s.betaSlow)].map((x, i) => (!s.truncate ? x : i === 0 ? Math.floor(x) : Math.ceil(x))) as [number, number];
    const from = Math.max(low, 0);
    const to = Math.min(high, d - 1);
    const width = from === to ? 0.001 : to - from;
    const values = powers(rope, theta).map((f, j) => {
      const interpolated = Math.min(1, Math.max(0, (j - from) / width));
      return (f / s.factor) * interpolated + f * (1 - interpolated);
    });
    return { values, scale: s.attentionFactor };
  },

  longrope: (rope, s, maxLength) => {
    const factors = maxLength > s.originalPositions ? s.longFactor : s.shortFactor;
    return { values: powers(rope, rope.theta).map((f, j) => f / factors[j]!), scale: s.attentionFactor };
  },

  llama3: (rope, s) => {
    const values = powers(rope, rope.theta).map((f) => {
      const wavelength = (2 * Math.PI) / f;
      if (wavelength < s.originalPositions / s.highFactor) return f;
      if (wavelength > s.originalPositions / s.lowFactor) return f / s.factor;
      const smooth = (s.originalPositions / wavelength - s.lowFactor) / (s.highFactor - s.lowFactor);
      return ((1 - smooth) * f) / s.factor + smooth * f;
    });
    return { values, scale: 1 };
  },
};

function powers(rope: RopeConfig, base: number): Float64Array {
  return Float64Array.from({ length: rope.rotaryDim / 2 }, (_, j) => base ** ((-2 * j) / rope.rotaryDim));
}
