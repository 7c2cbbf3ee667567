// The gradient of a weight: dyT x over tokens in canonical chunks, by row tiles; and Factors, the gradient term that postpones it.
import { shapeError } from '../errors.ts';
import type { FactorStores, Term } from '../grad.ts';
import type { Op, View } from '../op.ts';
import { defineOp } from '../op.ts';
import type { Random } from '../random.ts';
import type { Spec } from '../shape.ts';
import { dimOf } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

export type WeightGradAttributes = {
  /** First row of the weight that the tile holds. */
  readonly row: number;
};

function check(op: string, dy: Spec, x: Spec, tile: Spec, row: number): void {
  if (dy.shape.length !== 2 || x.shape.length !== 2 || dimOf(dy, 0) !== dimOf(x, 0)) throw shapeError(op, 'dy [T, n] and x [T, k]', [dy.shape, x.shape]);
  if (tile.shape.length !== 2 || tile.shape[1] !== x.shape[1] || row + dimOf(tile, 0) > dimOf(dy, 1)) {
    throw shapeError(op, `a tile [rows, ${dimOf(x, 1)}] of rows from ${row} on`, [tile.shape, dy.shape]);
  }
}

function accumulate(dy: View, x: View, tile: View, options: { row: number; add: boolean; chunk: number }): void {
  const [tokens, n] = [dimOf(dy, 0), dimOf(dy, 1)];
  const [rows, k] = [dimOf(tile, 0), dimOf(tile, 1)];
  const part = new Float64Array(k);
  for (let i = 0; i < rows; i++) {
    for (let from = 0; from < tokens; from += options.chunk) {
      part.fill(0);
      for (let t = from; t < Math.min(tokens, from + options.chunk); t++) {
        const factor = dy.data[t * n + options.row + i]!;
        for (let j = 0; j < k; j++) part[j]! += factor * x.data[t * k + j]!;
      }
      for (let j = 0; j < k; j++) tile.data[i * k + j] = (from > 0 || options.add ? tile.data[i * k + j]! : 0) + part[j]!;
    }
  }
}

function operands(random: Random) {
  const [tokens, n, k] = [random.pick([1, 3, 64, 511, 512, 513, 1100]), random.int(1, 24), random.int(1, 24)];
  const row = random.int(0, n - 1);
  const rows = random.int(1, n - row);
  return {
    row,
    tile: [rows, k],
    ins: [
      { shape: [tokens, n], dtype: 'real' as const, values: random.normal(tokens * n) },
      { shape: [tokens, k], dtype: 'real' as const, values: random.normal(tokens * k) },
    ],
    old: random.normal(rows * k),
  };
}

const flops = (dy: Spec, x: Spec, rows: number): number => 2 * dimOf(dy, 0) * rows * dimOf(x, 1);

/** tile = rows of dyT x; the tile is given through `outs`, its height is the number of rows. */
export const weightGradOp: Op<WeightGradAttributes> = defineOp({
  name: 'weight_grad',
  attributes: ['row'],
  dtypes: ['f32', 'bf16'],
  infer: (ins, { row }) => [{ shape: [dimOf(ins[0]!, 1) - row, dimOf(ins[1]!, 1)], dtype: 'f32' }],
  reference: ({ ins, outs }, { row }, { chunk }) => {
    check('weight_grad', ins[0]!, ins[1]!, outs[0]!, row);
    accumulate(ins[0]!, ins[1]!, outs[0]!, { row, add: false, chunk });
  },
  flops: (ins, _, __, outs) => flops(ins[0]!, ins[1]!, dimOf(outs[0]!, 0)),
  sample: (random) => {
    const s = operands(random);
    return { ins: s.ins, attributes: { row: s.row } };
  },
});

/** tile += rows of dyT x. */
export const weightGradAddOp: Op<WeightGradAttributes> = defineOp({
  name: 'weight_grad_add',
  attributes: ['row'],
  dtypes: ['f32', 'bf16'],
  infer: (ins, { row }, inouts) => {
    check('weight_grad_add', ins[0]!, ins[1]!, inouts[0]!, row);
    return [];
  },
  reference: ({ ins, inouts }, { row }, { chunk }) => accumulate(ins[0]!, ins[1]!, inouts[0]!, { row, add: true, chunk }),
  flops: (ins, _, inouts) => flops(ins[0]!, ins[1]!, dimOf(inouts[0]!, 0)),
  sample: (random) => {
    const s = operands(random);
    return { ins: s.ins, inouts: [{ shape: s.tile, dtype: 'f32', values: s.old }], attributes: { row: s.row } };
  },
});

/** tile f32 [rows, k] (+)= rows `row`.. of dyT x, dy [T, n], x [T, k]. */
export function weightGrad(tile: Tensor, dy: Tensor, x: Tensor, options: { readonly row: number; readonly add: boolean }): void {
  const { row, add } = options;
  check('weight_grad', dy, x, tile, row);
  if (add) tile.device.run(weightGradAddOp, { ins: [dy, x], inouts: [tile] }, { row });
  else tile.device.run(weightGradOp, { ins: [dy, x], outs: [tile] }, { row });
}

/** dyT x, not yet multiplied: dy [T, n] and x [T, k] over all tokens seen so far. */
export class Factors implements Term {
  private readonly dy: Tensor;
  private readonly x: Tensor;

  /** Takes over both handles. */
  constructor(dy: Tensor, x: Tensor) {
    this.dy = dy;
    this.x = x;
  }

  into(tile: Tensor, row: number, add: boolean): void {
    weightGrad(tile, this.dy, this.x, { row, add });
  }

  store(stores: FactorStores, at: number, count: number): Term {
    return new Factors(stores.keep(this.dy, at, count).share(), stores.keepSaved(this.x, at, count).share());
  }

  whole(): null {
    return null;
  }

  release(): void {
    this.dy.dispose();
    this.x.dispose();
  }
}
