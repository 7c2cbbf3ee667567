// Softmax cross-entropy on logits: whole rows at once, or over vocabulary tiles through running statistics.
import { shapeError } from '../errors.ts';
import type { Op, View } from '../op.ts';
import { defineOp } from '../op.ts';
import type { Random } from '../random.ts';
import { dimOf, numel } from '../shape.ts';

type Grad = { readonly grad: number };
type Column = { readonly column: number };

function operands(random: Random) {
  const [count, v] = [random.int(1, 12), random.int(2, 150)];
  const targets = Float64Array.from({ length: count }, () => (random.int(0, 4) === 0 ? -100 : random.int(0, v - 1)));
  return { count, v, targets, logits: random.normal(count * v, 3), scalars: [0.1, 1 / 7, 0.5, random.pick([1, 1024]), 0, 0, 0, 0] };
}

const i32 = (values: Float64Array) => ({ shape: [values.length], dtype: 'i32' as const, values });
const f32 = (shape: number[], values: ArrayLike<number>) => ({ shape, dtype: 'f32' as const, values });

function maxOf(row: View['data'], start: number): number {
  let max = start;
  for (const value of row) max = Math.max(max, value);
  return max;
}

function sumExp(row: View['data'], max: number): number {
  let sum = 0;
  for (const value of row) sum += Math.exp(value - max);
  return sum;
}

function toGradient(logits: View, lse: (row: number) => number, options: { targets: View; scale: number; column: number }): void {
  const [count, v] = [dimOf(logits, 0), dimOf(logits, 1)];
  for (let r = 0; r < count; r++) {
    const target = options.targets.data[r]!;
    for (let j = 0; j < v; j++) {
      const p = Math.exp(logits.data[r * v + j]! - lse(r));
      logits.data[r * v + j] = target < 0 ? 0 : (p - (j + options.column === target ? 1 : 0)) * options.scale;
    }
  }
}

/**
 * loss f32 [C] and lse f32 [C] of logits f32 [C, V]. grad 1: the logits become their gradient, scaled by the step's scalars; grad 2: they
 * do, and a third output [C, V] is the same, rounded to that output's dtype.
 */
export const crossEntropyOp: Op<Grad> = defineOp({
  name: 'cross_entropy',
  attributes: ['grad'],
  dtypes: ['f32', 'bf16'],
  infer: (ins, { grad }, inouts) => {
    const logits = inouts[0]!;
    const count = dimOf(logits, 0);
    if (dimOf(ins[0]!, 0) !== count) throw shapeError('cross_entropy', 'one target a row', [ins[0]!.shape, logits.shape]);
    return [...[0, 1].map(() => ({ shape: [count], dtype: 'f32' as const })), ...(grad === 2 ? [logits] : [])];
  },
  reference: ({ ins, inouts, outs }, { grad }) => {
    const [targets, scalars, logits] = [ins[0]!, ins[1]!, inouts[0]!];
    const [count, v] = [dimOf(logits, 0), dimOf(logits, 1)];
    for (let r = 0; r < count; r++) {
      const row = logits.data.subarray(r * v, r * v + v);
      const max = maxOf(row, -Infinity);
      const lse = max + Math.log(sumExp(row, max));
      const target = targets.data[r]!;
      outs[0]!.data[r] = target < 0 ? 0 : lse - row[target]!;
      outs[1]!.data[r] = lse;
    }
    if (grad === 0) return;
    toGradient(logits, (r) => outs[1]!.data[r]!, { targets, scale: scalars.data[1]! * scalars.data[3]!, column: 0 });
    if (grad === 2) outs[2]!.data.set(logits.data);
  },
  flops: (_, __, inouts) => 8 * numel(inouts[0]!.shape),
  sample: (random) => {
    const s = operands(random);
    const grad = random.int(0, 2);
    return {
      ins: [i32(s.targets), f32([8], s.scalars)],
      inouts: [f32([s.count, s.v], s.logits)],
      ...(grad === 2 ? { outs: ['f32', 'f32', 'real'] as const } : {}),
      attributes: { grad },
    };
  },
});

/** stats f32 [C, 3] = (max, sum of exp(l - max), target's logit) over the columns seen so far; column 0 starts them. */
export const crossEntropyTileOp: Op<Column> = defineOp({
  name: 'cross_entropy_tile',
  attributes: ['column'],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }, { column }) => {
    const [targets, logits, stats] = [ins[0]!, ins[1]!, inouts[0]!.data];
    const [count, v] = [dimOf(logits, 0), dimOf(logits, 1)];
    for (let r = 0; r < count; r++) {
      const row = logits.data.subarray(r * v, r * v + v);
      const before = column === 0 ? -Infinity : stats[r * 3]!;
      const max = maxOf(row, before);
      const kept = column === 0 ? 0 : stats[r * 3 + 1]! * Math.exp(before - max);
      stats[r * 3] = max;
      stats[r * 3 + 1] = kept + sumExp(row, max);
      const target = targets.data[r]! - column;
      if (column === 0) stats[r * 3 + 2] = 0;
      if (targets.data[r]! >= 0 && target >= 0 && target < v) stats[r * 3 + 2] = row[target]!;
    }
  },
  flops: (ins) => 4 * numel(ins[1]!.shape),
  sample: (random) => {
    const s = operands(random);
    const column = random.pick([0, 3]);
    const stats = Float64Array.from({ length: s.count * 3 }, (_, i) => (i % 3 === 1 ? 1 + random.uniform() : random.uniform()));
    return { ins: [i32(s.targets), f32([s.count, s.v], s.logits)], inouts: [f32([s.count, 3], stats)], attributes: { column } };
  },
});

/** loss and lse from complete statistics. */
export const crossEntropyFinishOp: Op<Record<never, number>> = defineOp({
  name: 'cross_entropy_finish',
  attributes: [],
  dtypes: ['f32'],
  infer: (ins) => [0, 1].map(() => ({ shape: [dimOf(ins[0]!, 0)], dtype: 'f32' as const })),
  reference: ({ ins, outs }) => {
    const [stats, targets] = [ins[0]!.data, ins[1]!.data];
    targets.forEach((target, r) => {
      const lse = stats[r * 3]! + Math.log(stats[r * 3 + 1]!);
      outs[0]!.data[r] = target < 0 ? 0 : lse - stats[r * 3 + 2]!;
      outs[1]!.data[r] = lse;
    });
  },
  flops: (ins) => 4 * dimOf(ins[0]!, 0),
  sample: (random) => {
    const s = operands(random);
    const stats = Float64Array.from({ length: s.count * 3 }, () => 1 + random.uniform());
    return { ins: [f32([s.count, 3], stats), i32(s.targets)], attributes: {} };
  },
});

/** A tile of logits f32 [C, v], columns from `column` on, becomes its gradient. */
export const crossEntropyGradOp: Op<Column> = defineOp({
  name: 'cross_entropy_grad',
  attributes: ['column'],
  dtypes: ['f32'],
  infer: () => [],
  reference: ({ ins, inouts }, { column }) => {
    const [targets, lse, scalars] = [ins[0]!, ins[1]!.data, ins[2]!.data];
    toGradient(inouts[0]!, (r) => lse[r]!, { targets, scale: scalars[1]! * scalars[3]!, column });
  },
  flops: (_, __, inouts) => 4 * numel(inouts[0]!.shape),
  sample: (random) => {
    const s = operands(random);
    const lse = Float64Array.from({ length: s.count }, () => 8 + random.uniform());
    return { ins: [i32(s.targets), f32([s.count], lse), f32([8], s.scalars)], inouts: [f32([s.count, s.v], s.logits)], attributes: { column: random.pick([0, 3]) } };
  },
});
