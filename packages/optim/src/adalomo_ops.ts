// The kernels of AdaLomo: moments, ratios and updates, for matrices and for vectors.
import type { Op, View } from '@lomo/tensor';
import { addTokenRow, defineOp, dimOf, matrixOf, numel } from '@lomo/tensor';
import { sampleUpdate } from './sample.ts';
import type { UpdateAttributes } from './update.ts';
import type { Measure } from './update.ts';
import { mayWrite, measureOf, scalar, shapedGradient, updateAttributes, writeRounded } from './update.ts';

type Moments = { readonly start: number; readonly decayRate: number; readonly eps1: number; readonly clipValue: number; readonly index: number; readonly check: number };
type Columns = { readonly rows: number; readonly decayRate: number };
type Ratio = { readonly clipValue: number };
type Vector = { readonly decayRate: number; readonly eps1: number; readonly clipValue: number; readonly index: number; readonly check: number };
type Update = UpdateAttributes & { readonly eps2: number; readonly d: number; readonly count: number };

const beta2 = (counters: View, decayRate: number): number => 1 - counters.data[0]! ** decayRate;
const sum = (values: View): number => {
  let total = 0;
  for (const value of values.data) total += value;
  return total;
};
const constants = { decayRate: -0.8, eps1: 1e-30 };

/** ins g [rows, k], scalars; inouts r f32 [rows], sums f32 [2, k], counters: r takes the rows' mean squares in, sums the columns' squares. */
export const adalomoMomentsOp: Op<Moments> = defineOp({
  name: 'adalomo_moments',
  attributes: ['start', 'decayRate', 'eps1', 'clipValue', 'index', 'check'],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }, t, { chunk }) => {
    const [g, scalars] = [ins[0]!, ins[1]!];
    const [r, sums, counters] = [inouts[0]!, inouts[1]!, inouts[2]!];
    if (!mayWrite(g, counters, t)) return;
    const [rows, k] = matrixOf(g.shape);
    const b2 = beta2(counters, t.decayRate);
    const q = (i: number): number => shapedGradient(g.data[i]!, scalars, t.clipValue) ** 2 + t.eps1;
    for (let i = 0; i < rows; i++) {
      let mean = 0;
      for (let j = 0; j < k; j++) mean += q(i * k + j) / k;
      r.data[i] = b2 * r.data[i]! + (1 - b2) * mean;
      addTokenRow(sums, t.start + i, { chunk, value: (j) => q(i * k + j) });
    }
  },
  flops: (ins) => 6 * numel(ins[0]!.shape),
  sample: (random) => {
    const s = sampleUpdate(random);
    const [rows, k] = [dimOf(s, 0), dimOf(s, 1)];
    return {
      ins: [s.g, s.scalars],
      inouts: [
        { shape: [rows], dtype: 'f32', values: random.normal(rows).map(Math.abs) },
        { shape: [2, k], dtype: 'f32', values: random.normal(2 * k).map(Math.abs) },
        s.counters,
      ],
      attributes: { start: random.pick([0, 508]), ...constants, clipValue: s.attributes.clipValue, index: 3, check: 1 },
    };
  },
});

/** ins sums f32 [2, k], scalars, counters; inout c f32 [k] takes the columns' mean squares in. */
export const adalomoColumnsOp: Op<Columns> = defineOp({
  name: 'adalomo_columns',
  attributes: ['rows', 'decayRate'],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }, { rows, decayRate }) => {
    const [sums, counters, c] = [ins[0]!, ins[2]!, inouts[0]!];
    if (counters.data[3] !== 0) return;
    const k = c.data.length;
    const b2 = beta2(counters, decayRate);
    for (let j = 0; j < k; j++) c.data[j] = b2 * c.data[j]! + ((1 - b2) * (sums.data[j]! + sums.data[k + j]!)) / rows;
  },
  flops: (ins) => 4 * dimOf(ins[0]!, 1),
  sample: (random) => {
    const s = sampleUpdate(random);
    const k = dimOf(s, 1);
    return {
      ins: [{ shape: [2, k], dtype: 'f32', values: random.normal(2 * k).map(Math.abs) }, s.scalars, s.counters],
      inouts: [{ shape: [k], dtype: 'f32', values: random.normal(k).map(Math.abs) }],
      attributes: { rows: random.int(1, 50), decayRate: -0.8 },
    };
  },
});

function matrixUpdate(ins: readonly View[], clipValue: number): (i: number) => number {
  const [g, r, c, rMean, scalars] = ins as [View, View, View, View, View];
  const k = c.data.length;
  return (i) => {
    const row = r.data[Math.floor(i / k)]! / rMean.data[0]!;
    return shapedGradient(g.data[i]!, scalars, clipValue) / Math.sqrt(row) / Math.sqrt(c.data[i % k]!);
  };
}

function rowSquares(shape: readonly number[], value: (i: number) => number, out: View): void {
  const [rows, k] = matrixOf(shape);
  for (let i = 0; i < rows; i++) {
    let total = 0;
    for (let j = 0; j < k; j++) total += value(i * k + j) ** 2;
    out.data[i] = total;
  }
}

/** Row sums of u^2 and p^2, u = g / sqrt(r / mean r) / sqrt(c). ins g, p, r, c, r_mean, scalars. */
export const adalomoRatioOp: Op<Ratio> = defineOp({
  name: 'adalomo_ratio',
  attributes: ['clipValue'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: (ins) => [0, 1].map(() => ({ shape: [dimOf(ins[0]!, 0)], dtype: 'f32' as const })),
  reference: ({ ins, outs }, { clipValue }) => {
    const [g, p, r, c, rMean, scalars] = ins as [View, View, View, View, View, View];
    rowSquares(g.shape, matrixUpdate([g, r, c, rMean, scalars], clipValue), outs[0]!);
    rowSquares(g.shape, (i) => p.data[i]!, outs[1]!);
  },
  flops: (ins) => 8 * numel(ins[0]!.shape),
  sample: (random) => {
    const m = sampleMatrix(random);
    return { ins: [m.g, m.p, m.r, m.c, m.rMean, m.scalars], attributes: { clipValue: m.attributes.clipValue } };
  },
});

/** ins g [n], scalars; inouts v f32 [n], counters. */
export const adalomoVectorOp: Op<Vector> = defineOp({
  name: 'adalomo_vector',
  attributes: ['decayRate', 'eps1', 'clipValue', 'index', 'check'],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }, t) => {
    const [g, scalars, v, counters] = [ins[0]!, ins[1]!, inouts[0]!, inouts[1]!];
    if (!mayWrite(g, counters, t)) return;
    const b2 = beta2(counters, t.decayRate);
    for (let i = 0; i < v.data.length; i++) v.data[i] = b2 * v.data[i]! + (1 - b2) * (shapedGradient(g.data[i]!, scalars, t.clipValue) ** 2 + t.eps1);
  },
  flops: (ins) => 5 * numel(ins[0]!.shape),
  sample: (random) => {
    const s = sampleUpdate(random);
    const n = numel(s.shape);
    return {
      ins: [{ ...s.g, shape: [n] }, s.scalars],
      inouts: [{ shape: [n], dtype: 'f32', values: random.normal(n).map(Math.abs) }, s.counters],
      attributes: { ...constants, clipValue: s.attributes.clipValue, index: 3, check: 1 },
    };
  },
});

/** Sums of u^2 and p^2, u = g / sqrt(v). ins g [n], p, v, scalars. */
export const adalomoVectorRatioOp: Op<Ratio> = defineOp({
  name: 'adalomo_vector_ratio',
  attributes: ['clipValue'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: () => [0, 1].map(() => ({ shape: [1], dtype: 'f32' as const })),
  reference: ({ ins, outs }, { clipValue }) => {
    const [g, p, v, scalars] = ins as [View, View, View, View];
    const shape = [1, g.data.length];
    rowSquares(shape, (i) => shapedGradient(g.data[i]!, scalars, clipValue) / Math.sqrt(v.data[i]!), outs[0]!);
    rowSquares(shape, (i) => p.data[i]!, outs[1]!);
  },
  flops: (ins) => 6 * numel(ins[0]!.shape),
  sample: (random) => {
    const s = sampleVector(random);
    return { ins: [s.g, s.p, s.v, s.scalars], attributes: { clipValue: s.attributes.clipValue } };
  },
});

function writeAdaptive(p: View, counters: View, options: Update & { readonly scalars: View; readonly u2: View; readonly p2: View; readonly u: (i: number) => number; readonly measure: Measure | null }): void {
  if (counters.data[3] !== 0) return;
  const { eps2, d, count, weightDecay } = options;
  const eta = options.scalars.data[scalar.lr]! * Math.max(eps2, Math.sqrt(sum(options.p2) / count));
  const shrink = Math.max(1, Math.sqrt(sum(options.u2) / count) / d);
  const value = (i: number): number => p.data[i]! * (1 - eta * weightDecay) - (eta * options.u(i)) / shrink;
  writeRounded(p, counters, { ...options, value });
}

const updateNames = [...updateAttributes, 'eps2', 'd', 'count'] as const;

/** ins g, r, c, r_mean, u2, p2, scalars; inouts p, counters; out, where measured, the rows' sums. */
export const adalomoUpdateOp: Op<Update> = defineOp({
  name: 'adalomo_update',
  attributes: updateNames,
  dtypes: ['f32', 'bf16', 'f16'],
  infer: () => [],
  reference: ({ ins, inouts, outs }, t) => {
    const [g, r, c, rMean, u2, p2, scalars] = ins as [View, View, View, View, View, View, View];
    writeAdaptive(inouts[0]!, inouts[1]!, { ...t, scalars, u2, p2, u: matrixUpdate([g, r, c, rMean, scalars], t.clipValue), measure: measureOf({ g, scalars, sums: outs[0] }) });
  },
  flops: (ins) => 10 * numel(ins[0]!.shape),
  sample: (random) => {
    const m = sampleMatrix(random);
    const count = numel(m.g.shape);
    return {
      ins: [m.g, m.r, m.c, m.rMean, ...sampleSquares(random), m.scalars],
      inouts: [m.p, m.counters],
      attributes: { ...m.attributes, eps2: 1e-3, d: 1, count },
    };
  },
});

/** ins g [n], v, u2, p2, scalars; inouts p, counters; out, where measured, the row's sums. */
export const adalomoVectorUpdateOp: Op<Update> = defineOp({
  name: 'adalomo_vector_update',
  attributes: updateNames,
  dtypes: ['f32', 'bf16', 'f16'],
  infer: () => [],
  reference: ({ ins, inouts, outs }, t) => {
    const [g, v, u2, p2, scalars] = ins as [View, View, View, View, View];
    const u = (i: number): number => shapedGradient(g.data[i]!, scalars, t.clipValue) / Math.sqrt(v.data[i]!);
    writeAdaptive(inouts[0]!, inouts[1]!, { ...t, scalars, u2, p2, u, measure: measureOf({ g, scalars, sums: outs[0] }) });
  },
  flops: (ins) => 8 * numel(ins[0]!.shape),
  sample: (random) => {
    const s = sampleVector(random);
    return {
      ins: [s.g, s.v, ...sampleSquares(random), s.scalars],
      inouts: [s.p, s.counters],
      attributes: { ...s.attributes, eps2: 1e-3, d: 1, count: numel(s.g.shape) },
    };
  },
});

type Source = Parameters<typeof sampleUpdate>[0];

function sampleSquares(random: Source) {
  const n = random.int(1, 20);
  return [0, 1].map(() => ({ shape: [n], dtype: 'f32' as const, values: random.normal(n).map(Math.abs) }));
}

function sampleMatrix(random: Source) {
  const s = finite(random);
  const [rows, k] = [dimOf(s, 0), dimOf(s, 1)];
  const positive = (n: number) => ({ shape: [n], dtype: 'f32' as const, values: random.normal(n).map((x) => 0.1 + Math.abs(x)) });
  return { ...s, r: positive(rows), c: positive(k), rMean: positive(1) };
}

function sampleVector(random: Source) {
  const s = finite(random);
  const n = numel(s.shape);
  const flat = { shape: [n] };
  return { ...s, g: { ...s.g, ...flat }, p: { ...s.p, ...flat }, v: { ...flat, dtype: 'f32' as const, values: random.normal(n).map((x) => 0.1 + Math.abs(x)) } };
}

/** Ratios and updates come after the check, so their gradients are finite. */
function finite(random: Source) {
  const s = sampleUpdate(random);
  return { ...s, g: { ...s.g, values: Float64Array.from(s.g.values, (x) => (Number.isFinite(x) ? x : 1)) } };
}
