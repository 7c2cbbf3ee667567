// Scaled dot-product attention over packed segments: causal, grouped-query, sliding window; training and decoding in one op.
import { shapeError } from '../errors.ts';
import type { Op, SampleTensor, View } from '../op.ts';
import { defineOp } from '../op.ts';
import type { Random } from '../random.ts';
import type { Spec } from '../shape.ts';
import { dimOf } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

export type AttentionAttributes = {
  readonly scale: number;
  /** 1: a query sees no later key. */
  readonly causal: number;
  /** Keys a query sees, itself included; 0: all. */
  readonly window: number;
  /** Longest segment on either side: sizes workspaces. */
  readonly maxQ: number;
  readonly maxK: number;
};

const names = ['scale', 'causal', 'window', 'maxQ', 'maxK'] as const;

interface Geometry {
  readonly tokens: number;
  readonly heads: number;
  readonly keys: number;
  readonly groups: number;
  readonly d: number;
}

function geometry(q: Spec, k: Spec, v: Spec): Geometry {
  const shapes = [q.shape, k.shape, v.shape];
  if (shapes.some((s) => s.length !== 3)) throw shapeError('attention', 'q [T, H, d], k and v [K, G, d]', shapes);
  const [tokens, heads, d] = q.shape as [number, number, number];
  const [keys, groups, dk] = k.shape as [number, number, number];
  if (dk !== d || v.shape.join() !== k.shape.join() || heads % groups !== 0) throw shapeError('attention', 'equal head sizes and H a multiple of G', shapes);
  return { tokens, heads, keys, groups, d };
}

/** Calls `visit` for every (query, key) pair that sees each other, keys ascending within a query. */
function visitPairs(cuQ: View, cuK: View, t: AttentionAttributes, visit: (query: number, from: number, to: number) => void): void {
  for (let s = 0; s + 1 < cuQ.data.length; s++) {
    const [q0, q1, k0, k1] = [cuQ.data[s]!, cuQ.data[s + 1]!, cuK.data[s]!, cuK.data[s + 1]!];
    const shift = k1 - k0 - (q1 - q0);
    for (let i = q0; i < q1; i++) {
      const own = i - q0 + shift;
      const to = t.causal ? Math.min(k1 - k0, own + 1) : k1 - k0;
      const from = t.window > 0 ? Math.max(0, own - t.window + 1) : 0;
      if (to > from) visit(i, k0 + from, k0 + to);
    }
  }
}

function dot(a: View['data'], at: number, b: View['data'], options: { readonly from: number; readonly d: number }): number {
  let sum = 0;
  for (let j = 0; j < options.d; j++) sum += a[at + j]! * b[options.from + j]!;
  return sum;
}

/** dq, dk and dv; probabilities are made again from lse. */
export const attentionBackwardOp: Op<AttentionAttributes> = defineOp({
  name: 'attention_backward',
  attributes: names,
  dtypes: ['f32', 'bf16'],
  infer: (ins) => [ins[0]!, ins[1]!, ins[2]!].map((s) => ({ shape: s.shape, dtype: s.dtype })),
  reference: ({ ins, outs }, t) => {
    const [q, k, v, o, lse, dO, cuQ, cuK] = ins as [View, View, View, View, View, View, View, View];
    const { tokens, heads, groups, d } = geometry(q, k, v);
    for (const out of outs) out.data.fill(0);
    const [dq, dk, dv] = outs.map((out) => out.data) as [Float64Array, Float64Array, Float64Array];
    visitPairs(cuQ, cuK, t, (i, from, to) => {
      for (let h = 0; h < heads; h++) {
        const at = (i * heads + h) * d;
        const rowSum = dot(dO.data, at, o.data, { from: at, d });
        for (let key = from; key < to; key++) {
          const kAt = (key * groups + Math.floor(h / (heads / groups))) * d;
          const p = Math.exp(t.scale * dot(q.data, at, k.data, { from: kAt, d }) - lse.data[h * tokens + i]!);
          const ds = t.scale * p * (dot(dO.data, at, v.data, { from: kAt, d }) - rowSum);
          for (let j = 0; j < d; j++) {
            dv[kAt + j]! += p * dO.data[at + j]!;
            dq[at + j]! += ds * k.data[kAt + j]!;
            dk[kAt + j]! += ds * q.data[at + j]!;
          }
        }
      }
    });
  },
  flops: (ins, t) => 2.5 * pairFlops(ins, t),
  sample: (random) => {
    const s = operands(random);
    const { tokens, heads, d } = s;
    const [o, lse] = [new Float64Array(tokens * heads * d), new Float64Array(heads * tokens)];
    const view = (i: number): View => ({ shape: s.ins[i]!.shape, dtype: 'f32', data: Float64Array.from(s.ins[i]!.values) });
    attentionOp.reference(
      {
        ins: [0, 1, 2, 3, 4].map(view),
        inouts: [],
        outs: [
          { shape: [tokens, heads, d], dtype: 'f32', data: o },
          { shape: [heads, tokens], dtype: 'f32', data: lse },
        ],
      },
      s.attributes,
      { chunk: 512 },
    );
    const dout: SampleTensor = { shape: [tokens, heads, d], dtype: 'real', values: random.normal(tokens * heads * d) };
    return {
      ins: [
        ...s.ins.slice(0, 3),
        { shape: [tokens, heads, d], dtype: 'real', values: o },
        { shape: [heads, tokens], dtype: 'f32', values: lse },
        dout,
        ...s.ins.slice(3),
      ],
      attributes: s.attributes,
      // Weights, and gradients of scores: p (dP - D), of a few units' size for operands of unit variance.
      rounded: 3 * Math.max(...[s.ins[0]!, s.ins[1]!, dout].map(largest)),
    };
  },
});

function largest({ values }: SampleTensor): number {
  return Array.from(values).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

/** o [T, H, d] and lse f32 [H, T]. A query that sees nothing has o = 0 and lse = -inf. */
export const attentionOp: Op<AttentionAttributes> = defineOp({
  name: 'attention',
  attributes: names,
  dtypes: ['f32', 'bf16'],
  infer: (ins) => {
    const [q, k, v, cuQ, cuK] = ins as [Spec, Spec, Spec, Spec, Spec];
    const { tokens, heads } = geometry(q, k, v);
    if (cuQ.shape.join() !== cuK.shape.join() || cuQ.dtype !== 'i32') throw shapeError('attention', 'segment starts i32 of equal length', [cuQ.shape, cuK.shape]);
    return [
      { shape: q.shape, dtype: q.dtype },
      { shape: [heads, tokens], dtype: 'f32' },
    ];
  },
  reference: ({ ins, outs }, t) => {
    const [q, k, v, cuQ, cuK] = ins as [View, View, View, View, View];
    const { tokens, heads, groups, d } = geometry(q, k, v);
    const [o, lse] = [outs[0]!.data, outs[1]!.data];
    o.fill(0);
    lse.fill(-Infinity);
    visitPairs(cuQ, cuK, t, (i, from, to) => {
      for (let h = 0; h < heads; h++) {
        const at = (i * heads + h) * d;
        const group = Math.floor(h / (heads / groups));
        const scores: number[] = [];
        for (let key = from; key < to; key++) scores.push(t.scale * dot(q.data, at, k.data, { from: (key * groups + group) * d, d }));
        const max = Math.max(...scores);
        const sum = scores.reduce((a, s) => a + Math.exp(s - max), 0);
        lse[h * tokens + i] = max + Math.log(sum);
        scores.forEach((s, n) => {
          const p = Math.exp(s - max) / sum;
          const vAt = ((from + n) * groups + group) * d;
          for (let j = 0; j < d; j++) o[at + j]! += p * v.data[vAt + j]!;
        });
      }
    });
  },
  saves: (ins, outs) => [...ins, ...outs],
  backward: (call, dys) => {
    const [q, k, v, cuQ, cuK] = call.ins as [Tensor, Tensor, Tensor, Tensor, Tensor];
    const [o, lse] = call.outs as [Tensor, Tensor];
    const [dq, dk, dv] = call.device.run(attentionBackwardOp, { ins: [q, k, v, o, lse, dys[0]!, cuQ, cuK] }, call.attributes);
    return [dq!, dk!, dv!, null, null];
  },
  flops: (ins, t) => pairFlops(ins, t),
  sample: (random) => {
    const s = operands(random);
    // The weights of a row sum to 1, so their roundings move its output by half a unit of the largest value at most.
    return { ins: s.ins, attributes: s.attributes, rounded: largest(s.ins[2]!) };
  },
});

/** Two products over the pairs a causal mask of full segments leaves. */
function pairFlops(ins: readonly Spec[], t: AttentionAttributes): number {
  const { tokens, heads, keys, d } = geometry(ins[0]!, ins[1]!, ins[2]!);
  const seen = Math.min(keys, t.maxK, t.window > 0 ? t.window : Infinity);
  return 4 * tokens * heads * d * (t.causal && t.maxQ > 1 ? seen / 2 : seen);
}

function operands(random: Random) {
  const segments = random.int(1, 3);
  const lengths = Array.from({ length: segments }, () => random.pick([0, 1, 5, 17, 40]));
  const extra = random.pick([0, 0, 3]);
  const starts = (sizes: number[]): number[] => [0, ...sizes.map((_, i) => sizes.slice(0, i + 1).reduce((a, b) => a + b, 0))];
  const [cuQ, cuK] = [starts(lengths), starts(lengths.map((n) => n + extra))];
  const [tokens, keys] = [Math.max(1, cuQ.at(-1)!) + random.pick([0, 2]), Math.max(1, cuK.at(-1)!)];
  const groups = random.int(1, 2);
  const heads = groups * random.int(1, 3);
  const d = random.pick([1, 8, 10, 16, 33, 64]);
  const real = (rows: number, h: number): SampleTensor => ({ shape: [rows, h, d], dtype: 'real', values: random.normal(rows * h * d) });
  const i32 = (values: number[]): SampleTensor => ({ shape: [values.length], dtype: 'i32', values });
  const attributes: AttentionAttributes = {
    scale: 1 / Math.sqrt(d),
    causal: random.pick([1, 1, 0]),
    window: random.pick([0, 0, 7]),
    maxQ: Math.max(1, ...lengths),
    maxK: Math.max(1, ...lengths) + extra,
  };
  return { tokens, heads, d, ins: [real(tokens, heads), real(keys, groups), real(keys, groups), i32(cuQ), i32(cuK)], attributes };
}

export interface AttentionOptions {
  /** Segment starts i32 [S + 1] on the query and on the key side. */
  readonly cuQ: Tensor;
  readonly cuK: Tensor;
  readonly maxQ: number;
  readonly maxK: number;
  /** 1 / sqrt(d) unless given. */
  readonly scale?: number;
  readonly causal?: boolean;
  readonly window?: number;
}

/** q [T, H, d], k and v [K, G, d] -> [T, H, d]. */
export function attention(q: Tensor, kv: { readonly k: Tensor; readonly v: Tensor }, options: AttentionOptions): Tensor {
  const { cuQ, cuK, maxQ, maxK } = options;
  return q.device.apply(attentionOp, [q, kv.k, kv.v, cuQ, cuK], {
    scale: options.scale ?? 1 / Math.sqrt(dimOf(q, 2)),
    causal: options.causal === false ? 0 : 1,
    window: options.window ?? 0,
    maxQ,
    maxK,
  })[0]!;
}
