// Rows of a table by token id; and Rows, the gradient term that sums them by id in token order.
import { activationOf } from '../dtype.ts';
import { LomoError, shapeError } from '../errors.ts';
import type { Compact, FactorStores, Term } from '../grad.ts';
import { Grad } from '../grad.ts';
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { dimOf, numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { fill } from './fill.ts';

/** g[id - row] += dy[t] for t ascending, where the id lies in the tile. */
export const embeddingGradAddOp: Op<{ readonly row: number }> = defineOp({
  name: 'embedding_grad_add',
  attributes: ['row'],
  dtypes: ['f32', 'bf16'],
  infer: (ins, _, inouts) => {
    if (ins[1]!.shape[1] !== inouts[0]!.shape[1] || ins[0]!.shape[0] !== ins[1]!.shape[0]) {
      throw shapeError('embedding_grad_add', 'ids [T], dy [T, h], tile [rows, h]', [ins[0]!.shape, ins[1]!.shape, inouts[0]!.shape]);
    }
    return [];
  },
  reference: ({ ins, inouts }, { row }) => {
    const [ids, dy, tile] = [ins[0]!, ins[1]!, inouts[0]!];
    const [rows, h] = [dimOf(tile, 0), dimOf(tile, 1)];
    for (let t = 0; t < dimOf(ids, 0); t++) {
      const at = ids.data[t]! - row;
      if (at < 0 || at >= rows) continue;
      for (let j = 0; j < h; j++) tile.data[at * h + j]! += dy.data[t * h + j]!;
    }
  },
  flops: (ins) => numel(ins[1]!.shape),
  sample: (random) => {
    const [tokens, h, rows] = [random.int(1, 60), random.int(1, 40), random.int(1, 20)];
    return {
      ins: [
        { shape: [tokens], dtype: 'i32', values: random.ints(tokens, rows + 8) },
        { shape: [tokens, h], dtype: 'real', values: random.normal(tokens * h) },
      ],
      inouts: [{ shape: [rows, h], dtype: 'f32', values: random.normal(rows * h) }],
      attributes: { row: random.int(0, 6) },
    };
  },
});

/** The embedding's gradient: rows dy [T, h] to be summed by ids [T]. */
class Rows implements Term {
  private readonly ids: Tensor;
  private readonly dy: Tensor;

  constructor(ids: Tensor, dy: Tensor) {
    this.ids = ids;
    this.dy = dy;
  }

  into(tile: Tensor, row: number, add: boolean): void {
    if (!add) fill(tile, 0);
    tile.device.run(embeddingGradAddOp, { ins: [this.ids, this.dy], inouts: [tile] }, { row });
  }

  store(stores: FactorStores, at: number, count: number): Term {
    return new Rows(stores.keepSaved(this.ids, at, count).share(), stores.keep(this.dy, at, count).share());
  }

  whole(): null {
    return null;
  }

  compact(): Compact {
    return { operands: [this.ids, this.dy], remake: ([ids, dy]) => new Rows(ids!, dy!) };
  }

  release(): void {
    this.ids.dispose();
    this.dy.dispose();
  }
}

/** y[t] = w[ids[t]], in the dtype of activations beside w. */
export const embeddingOp: Op<Record<never, number>> = defineOp({
  name: 'embedding',
  attributes: [],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: (ins) => {
    const [ids, w] = [ins[0]!, ins[1]!];
    if (ids.shape.length !== 1 || w.shape.length !== 2 || ids.dtype !== 'i32') throw shapeError('embedding', 'ids i32 [T] and w [V, h]', [ids.shape, w.shape]);
    return [{ shape: [dimOf(ids, 0), dimOf(w, 1)], dtype: activationOf(w.dtype) }];
  },
  reference: ({ ins, outs }) => {
    const [ids, w] = [ins[0]!, ins[1]!];
    const [v, h] = [dimOf(w, 0), dimOf(w, 1)];
    ids.data.forEach((id, t) => {
      if (id < 0 || id >= v) throw new LomoError('TokenOutOfRange', `embedding: token id ${id} at position ${t} is outside the vocabulary of ${v}`, { id, position: t });
      for (let j = 0; j < h; j++) outs[0]!.data[t * h + j] = w.data[id * h + j]!;
    });
  },
  saves: (ins) => [ins[0]!],
  backward: (call, dys) => [null, new Grad(call.device, call.ins[1]!.shape, [new Rows(call.ins[0]!.share(), dys[0]!.share())])],
  flops: () => 0,
  sample: (random) => {
    const [tokens, v, h] = [random.int(1, 40), random.int(1, 30), random.int(1, 70)];
    return {
      ins: [
        { shape: [tokens], dtype: 'i32', values: random.ints(tokens, v) },
        { shape: [v, h], dtype: 'real', values: random.normal(v * h) },
      ],
      attributes: {},
    };
  },
});

/** ids i32 [T], w [V, h] -> [T, h]. */
export function embedding(ids: Tensor, w: Tensor): Tensor {
  return ids.device.apply(embeddingOp, [ids, w], {})[0]!;
}
