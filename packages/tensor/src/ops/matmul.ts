// Matrix products: matmul stores, matmul_add adds to what is there.
import { shapeError } from '../errors.ts';
import type { Op, View } from '../op.ts';
import { defineOp } from '../op.ts';
import type { Random } from '../random.ts';
import type { Spec } from '../shape.ts';
import { dimOf } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

export type MatmulAttributes = {
  /** 1: a is [k, m]. */
  readonly ta: number;
  /** 1: b is [n, k]. */
  readonly tb: number;
  readonly alpha: number;
};

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

function sizes(op: string, a: Spec, b: Spec, t: MatmulAttributes): Sizes {
  if (a.shape.length !== 2 || b.shape.length !== 2) throw shapeError(op, 'two matrices', [a.shape, b.shape]);
  const [m, k] = t.ta ? [dimOf(a, 1), dimOf(a, 0)] : [dimOf(a, 0), dimOf(a, 1)];
  const [n, inner] = t.tb ? [dimOf(b, 0), dimOf(b, 1)] : [dimOf(b, 1), dimOf(b, 0)];
  if (inner !== k) throw shapeError(op, `an inner dimension of ${k} on both sides (ta ${t.ta}, tb ${t.tb})`, [a.shape, b.shape]);
  return { m, n, k };
}

function product(a: View, b: View, c: View, t: MatmulAttributes, start: (i: number, j: number) => number): void {
  const { m, n, k } = sizes('matmul', a, b, t);
  const row = new Float64Array(k);
  for (let i = 0; i < m; i++) {
    for (let p = 0; p < k; p++) row[p] = t.ta ? a.data[p * m + i]! : a.data[i * k + p]!;
    for (let j = 0; j < n; j++) {
      let sum = 0;
      if (t.tb) for (let p = 0, at = j * k; p < k; p++, at++) sum += row[p]! * b.data[at]!;
      else for (let p = 0, at = j; p < k; p++, at += n) sum += row[p]! * b.data[at]!;
      c.data[i * n + j] = start(i, j) + t.alpha * sum;
    }
  }
}

function sampleOperands(random: Random): { a: number[]; b: number[]; c: number[]; attributes: MatmulAttributes; bias: boolean } {
  const [m, n, k] = [random.int(1, 70), random.int(1, 70), random.int(1, 70)];
  const [ta, tb] = [random.int(0, 1), random.int(0, 1)];
  return {
    a: ta ? [k, m] : [m, k],
    b: tb ? [n, k] : [k, n],
    c: [m, n],
    attributes: { ta, tb, alpha: random.pick([1, 0.5]) },
    bias: random.int(0, 1) === 1,
  };
}

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** c = alpha op(a) op(b) (+ bias [n]); output dtype is the inputs' unless `outs` says otherwise. */
export const matmulOp: Op<MatmulAttributes> = defineOp({
  name: 'matmul',
  attributes: ['ta', 'tb', 'alpha'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: (ins, t) => {
    const [a, b, bias] = ins as [Spec, Spec, Spec?];
    const { m, n } = sizes('matmul', a, b, t);
    if (bias !== undefined && (bias.shape.length !== 1 || bias.shape[0] !== n)) throw shapeError('matmul', `a bias of ${n}`, [bias.shape]);
    return [{ shape: [m, n], dtype: a.dtype }];
  },
  reference: ({ ins, outs }, t) => {
    const bias = ins[2];
    product(ins[0]!, ins[1]!, outs[0]!, t, (_, j) => (bias === undefined ? 0 : bias.data[j]!));
  },
  flops: (ins, t) => {
    const { m, n, k } = sizes('matmul', ins[0]!, ins[1]!, t);
    return 2 * m * n * k;
  },
  sample: (random) => {
    const s = sampleOperands(random);
    const operand = (shape: number[], dtype: 'activation' | 'real') => ({ shape, dtype, values: random.normal(size(shape)) });
    const bias = s.bias ? [operand([s.c[1]!], 'real')] : [];
    return { ins: [operand(s.a, 'activation'), operand(s.b, 'real'), ...bias], outs: [random.pick(['activation', 'f32'])], attributes: s.attributes };
  },
});

/** c += alpha op(a) op(b). */
export const matmulAddOp: Op<MatmulAttributes> = defineOp({
  name: 'matmul_add',
  attributes: ['ta', 'tb', 'alpha'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: (ins, t, inouts) => {
    const { m, n } = sizes('matmul_add', ins[0]!, ins[1]!, t);
    const c = inouts[0]!;
    if (c.shape[0] !== m || c.shape[1] !== n) throw shapeError('matmul_add', `a sum of [${m}, ${n}]`, [c.shape]);
    return [];
  },
  reference: ({ ins, inouts }, t) => {
    const c = inouts[0]!;
    const n = dimOf(c, 1);
    product(ins[0]!, ins[1]!, c, t, (i, j) => c.data[i * n + j]!);
  },
  flops: matmulOp.flops,
  sample: (random) => {
    const s = sampleOperands(random);
    const operand = (shape: number[], dtype: 'activation' | 'real' | 'f32') => ({ shape, dtype, values: random.normal(size(shape)) });
    return { ins: [operand(s.a, 'activation'), operand(s.b, 'real')], inouts: [operand(s.c, random.pick(['activation', 'f32']))], attributes: s.attributes };
  },
});

export interface MatmulOptions {
  readonly ta?: boolean;
  readonly tb?: boolean;
  readonly alpha?: number;
  /** Where the result goes; a new tensor of a's dtype unless given. */
  readonly into?: Tensor;
}

function flags(options: MatmulOptions): MatmulAttributes {
  return { ta: options.ta === true ? 1 : 0, tb: options.tb === true ? 1 : 0, alpha: options.alpha ?? 1 };
}

/** alpha op(a) op(b), not recorded on a tape. */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const launch = options.into === undefined ? { ins: [a, b] } : { ins: [a, b], outs: [options.into] };
  return a.device.run(matmulOp, launch, flags(options))[0]!;
}

/** c += alpha op(a) op(b), not recorded on a tape. */
export function matmulAdd(c: Tensor, a: Tensor, b: Tensor, options: MatmulOptions = {}): void {
  a.device.run(matmulAddOp, { ins: [a, b], inouts: [c] }, flags(options));
}
