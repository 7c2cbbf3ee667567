// RoPE settings in both spellings: classic (rope_theta, rope_scaling) and transformers 5 (rope_parameters).
import type { JsonObject } from '../json.ts';
import { isJsonObject } from '../json.ts';
import { Fields } from './fields.ts';

/** How far angles are stretched; lengths in tokens. Names and meanings are those of transformers. */
export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear' | 'dynamic'; readonly factor: number }
  | {
      readonly type: 'yarn';
      readonly factor: number;
      readonly originalPositions: number;
      readonly attentionFactor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly truncate: boolean;
    }
  | {
      readonly type: 'longrope';
      readonly originalPositions: number;
      readonly attentionFactor: number;
      readonly longFactor: readonly number[];
      readonly shortFactor: readonly number[];
    }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly originalPositions: number;
      readonly lowFactor: number;
      readonly highFactor: number;
    };

export interface RopeConfig {
  readonly theta: number;
  /** Elements of each head that are rotated; even. */
  readonly rotaryDim: number;
  readonly maxPositions: number;
  readonly scaling: RopeScaling;
}

interface RopeSizes {
  readonly headDim: number;
  readonly maxPositions: number;
}

/** Takes every RoPE field from `fields`. Contradictions between spellings and unknown settings: LomoError 'UnsupportedConfig'. */
export function parseRope(fields: Fields, sizes: RopeSizes): RopeConfig {
  const classic = fields.section('rope_scaling');
  const modern = fields.section('rope_parameters');
  if (classic !== undefined && modern !== undefined && JSON.stringify(classic) !== JSON.stringify(modern)) {
    throw fields.refuse('rope_scaling', 'contradicts rope_parameters; keep one of them');
  }
  const where = classic === undefined ? 'rope_parameters' : 'rope_scaling';
  const settings: JsonObject = classic ?? modern ?? {};
  if (Object.values(settings).some(isJsonObject)) throw fields.refuse(where, 'RoPE settings per layer type are not supported');
  const inner = new Fields(settings, `${where}.`);
  const theta = agreed(fields, inner, 'rope_theta') ?? 10_000;
  const portion = agreed(fields, inner, 'partial_rotary_factor') ?? 1;
  if (portion > 1) throw fields.refuse('partial_rotary_factor', 'expected a number in (0, 1]');
  // transformers rounds down to whole elements, then an odd count up to a pair.
  const rotaryDim = 2 * Math.ceil(Math.trunc(sizes.headDim * portion) / 2);
  if (rotaryDim === 0 || rotaryDim > sizes.headDim) throw fields.refuse('head_dim', `RoPE needs an even number of elements, not ${rotaryDim} of ${sizes.headDim}`);

  const type = inner.text('rope_type');
  const legacy = inner.text('type');
  if (type !== undefined && legacy !== undefined && type !== legacy) throw inner.refuse('type', `contradicts rope_type = ${JSON.stringify(type)}`);
  const name = type ?? legacy ?? 'default';
  const parse = Object.hasOwn(scalings, name) ? scalings[name as keyof typeof scalings] : undefined;
  if (parse === undefined) throw inner.refuse(type === undefined ? 'type' : 'rope_type', `known: ${Object.keys(scalings).join(', ')}`);
  // Some families keep this beside the RoPE settings; there it wins, as in transformers.
  const original = fields.has('original_max_position_embeddings') ? fields.size('original_max_position_embeddings') : undefined;
  const scaling = parse(inner, { ...sizes, original, pairs: rotaryDim / 2 });
  inner.finish();
  return { theta, rotaryDim, maxPositions: sizes.maxPositions, scaling };
}

interface ScalingFacts extends RopeSizes {
  readonly original: number | undefined;
  readonly pairs: number;
}

const scalings = {
  default: (): RopeScaling => ({ type: 'default' }),
  linear: (f: Fields): RopeScaling => ({ type: 'linear', factor: f.number('factor', { above: 0 }) }),
  dynamic: (f: Fields, facts: ScalingFacts): RopeScaling => {
    const factor = f.number('factor', { above: 0 });
    if (f.has('original_max_position_embeddings') && f.size('original_max_position_embeddings') !== facts.maxPositions) {
      throw f.refuse('original_max_position_embeddings', `with 'dynamic', transformers takes max_position_embeddings (${facts.maxPositions}); make them equal`);
    }
    return { type: 'dynamic', factor };
  },
  yarn: (f: Fields, facts: ScalingFacts): RopeScaling => {
    const originalPositions = originalOf(f, facts);
    const factor = f.has('factor') ? f.number('factor', { above: 0 }) : facts.maxPositions / originalPositions;
    const mscale = f.has('mscale') ? f.number('mscale', { above: -Infinity }) : 0;
    const mscaleAllDim = f.has('mscale_all_dim') ? f.number('mscale_all_dim', { above: -Infinity }) : 0;
    const grown = (m: number) => (factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1);
    const inferred = mscale !== 0 && mscaleAllDim !== 0 ? grown(mscale) / grown(mscaleAllDim) : grown(1);
    return {
      type: 'yarn',
      factor,
      originalPositions,
      attentionFactor: f.number('attention_factor', { above: 0, fallback: inferred }),
      betaFast: f.number('beta_fast', { above: 0, fallback: 32 }),
      betaSlow: f.number('beta_slow', { above: 0, fallback: 1 }),
      truncate: f.flag('truncate', true),
    };
  },
  longrope: (f: Fields, facts: ScalingFacts): RopeScaling => {
    const originalPositions = originalOf(f, facts);
    const factor = f.has('factor') ? f.number('factor', { above: 0 }) : facts.maxPositions / originalPositions;
    const inferred = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalPositions));
    return {
      type: 'longrope',
      originalPositions,
      attentionFactor: f.number('attention_factor', { above: 0, fallback: inferred }),
      longFactor: factors(f, 'long_factor', facts.pairs),
      shortFactor: factors(f, 'short_factor', facts.pairs),
    };
  },
  llama3: (f: Fields, facts: ScalingFacts): RopeScaling => {
    const lowFactor = f.number('low_freq_factor', { above: 0 });
    const highFactor = f.number('high_freq_factor', { above: 0 });
    if (highFactor <= lowFactor) throw f.refuse('high_freq_factor', `expected more than low_freq_factor (${lowFactor})`);
    return { type: 'llama3', factor: f.number('factor', { above: 0 }), originalPositions: originalOf(f, facts), lowFactor, highFactor };
  },
} satisfies Record<RopeScaling['type'], (fields: Fields, facts: ScalingFacts) => RopeScaling>;

function originalOf(f: Fields, facts: ScalingFacts): number {
  const inside = f.has('original_max_position_embeddings') ? f.size('original_max_position_embeddings') : undefined;
  return facts.original ?? inside ?? facts.maxPositions;
}

function factors(f: Fields, name: string, pairs: number): readonly number[] {
  const list = f.list(name);
  if (list === undefined || list.length !== pairs || !list.every((x): x is number => typeof x === 'number' && x > 0)) {
    throw f.refuse(name, `expected ${pairs} positive numbers, one a rotated pair`);
  }
  return list;
}

function agreed(outer: Fields, inner: Fields, name: string): number | undefined {
  const outside = outer.has(name) ? outer.number(name, { above: 0 }) : undefined;
  const inside = inner.has(name) ? inner.number(name, { above: 0 }) : undefined;
  if (outside !== undefined && inside !== undefined && outside !== inside) throw outer.refuse(name, `contradicts ${inside} in the RoPE settings`);
  return inside ?? outside;
}
