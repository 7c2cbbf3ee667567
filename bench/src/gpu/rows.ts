// Whether the bits of a product's row depend on how many rows are multiplied beside it: the promise of equal bits rests on it.
import { createHash } from 'node:crypto';
import type { Tensor } from '@lomo/tensor';
import { Device, matmulOp, normalFill } from '@lomo/tensor';
import type { Where } from './where.ts';
import { openCuda } from './where.ts';

export interface RowsJob {
  readonly where: Where;
  /** Products as [columns of x, columns of the result]. */
  readonly products: readonly (readonly [number, number])[];
  /** Counts of rows; the first is what every other is compared in. */
  readonly counts: readonly number[];
}

/** One product that came out otherwise. */
export interface RowsDifference {
  readonly product: string;
  readonly rows: number;
}

export interface RowsResult {
  readonly compared: number;
  readonly differ: readonly RowsDifference[];
}

/** Multiplies the same first rows among more and more others, in both orientations of the weight. */
export async function compareRows({ where, products, counts }: RowsJob): Promise<RowsResult> {
  await using backend = openCuda(where);
  const [least, most] = [counts[0]!, Math.max(...counts)];
  const device = new Device(backend, { bytes: Math.max(...products.map(([k, n]) => 2 * (most * (k + n) + k * n))) + 2 ** 26 });
  const differ: RowsDifference[] = [];
  let compared = 0;
  try {
    for (const [k, n] of products) {
      const [x, w, y] = [[most, k], [k, n], [most, n]].map((shape) => device.allocate({ shape, dtype: 'bf16' }, 'workspace')) as [Tensor, Tensor, Tensor];
      for (const [key, tensor] of [x, w].entries()) normalFill(tensor, { key, seed: 2, mean: 0, std: 1 });
      for (const tb of [0, 1]) {
        let first: string | null = null;
        for (const rows of counts) {
          const [xs, ys] = [x.rows(0, rows), y.rows(0, rows)];
          device.run(matmulOp, { ins: [xs, tb === 1 ? w.reshape([n, k]) : w], outs: [ys] }, { ta: 0, tb, alpha: 1 });
          const got = await device.read(y.rows(0, least));
          const digest = createHash('sha256').update(new Uint8Array(got.buffer, got.byteOffset, got.byteLength)).digest('hex');
          first ??= digest;
          compared++;
          if (digest !== first) differ.push({ product: `[rows, ${k}] x [${k}, ${n}]${tb === 1 ? ' transposed' : ''}`, rows });
        }
      }
      for (const tensor of [x, w, y]) tensor.dispose();
    }
  } finally {
    device.free();
  }
  return { compared, differ };
}
