// Golden rows of ids and labels as micro-batches for a program: packed one after another, the label of a position is the next one of its row.
import type { BatchShape, HostBatch } from '@lomo/parallel';

/** Rows of one micro-batch, with one label a token; labels below 0 are not trained. */
export interface Rows {
  readonly ids: readonly (readonly number[])[];
  readonly labels: readonly (readonly number[])[];
}

const masked = -100;

/** Micro-batches of one shape, and that shape. */
export interface Packed {
  readonly shape: BatchShape;
  readonly batches: readonly HostBatch[];
}

/** Packs every element of `rows` into a micro-batch; shorter ones end in a masked segment of padding, so that all have one shape. */
export function packRows(rows: readonly Rows[]): Packed {
  for (const { ids, labels } of rows) {
    const same = ids.length === labels.length && ids.every((row, i) => row.length === labels[i]!.length);
    if (!same || ids.length === 0) throw new Error('a batch of the file has no rows, or labels of another shape than its ids');
  }
  const sizes = rows.map(({ ids }) => ids.reduce((sum, row) => sum + row.length, 0));
  const tokens = Math.max(...sizes);
  const padded = rows.map(({ ids, labels }, i) => {
    const gap = tokens - sizes[i]!;
    if (gap === 0) return { ids, labels };
    return { ids: [...ids, Array.from({ length: gap }, () => 0)], labels: [...labels, Array.from({ length: gap }, () => masked)] };
  });
  const maxSegments = Math.max(...padded.map(({ ids }) => ids.length));
  const maxLength = Math.max(...padded.flatMap(({ ids }) => ids.map((row) => row.length)));
  return { shape: { tokens, maxSegments, maxLength }, batches: padded.map((one) => pack(one, maxSegments)) };
}

function pack({ ids, labels }: Rows, maxSegments: number): HostBatch {
  const starts = [0];
  for (const row of ids) starts.push(starts.at(-1)! + row.length);
  while (starts.length < maxSegments + 1) starts.push(starts.at(-1)!);
  return {
    tokens: Int32Array.from(ids.flat()),
    targets: Int32Array.from(labels.flatMap((row) => [...row.slice(1), masked])),
    positions: Int32Array.from(ids.flatMap((row) => row.map((_, i) => i))),
    starts: Int32Array.from(starts),
  };
}

/** Losses by position as the golden files hold them: row by row, without the last position, which predicts nothing. */
export function lossesByRow(losses: ArrayLike<number>, ids: readonly (readonly number[])[]): number[][] {
  let at = 0;
  return ids.map((row) => {
    const own = Array.from({ length: row.length - 1 }, (_, i) => losses[at + i]!);
    at += row.length;
    return own;
  });
}
