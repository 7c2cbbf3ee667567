// Rows of a step's layout put together to micro-batches: the same tokens in the same order, however many rows make one.
import type { HostBatch } from '@lomo/parallel';

/** What a row has, and what a micro-batch of rows keeps. */
export interface Row extends HostBatch {
  readonly samples: readonly number[];
}

/** `rows` consecutive rows as one micro-batch; starts are moved along, those of empty segments dropped, and padded at the end. */
export function joinRows(batches: readonly Row[], rows: number): Row[] {
  if (rows === 1) return [...batches];
  return Array.from({ length: batches.length / rows }, (_, m) => joined(batches.slice(m * rows, (m + 1) * rows)));
}

/** Micro-batches of `rows` rows of everything that is held out; rows without a target are left out, and fill up the last one. */
export function* evaluationRows(steps: Iterable<{ readonly batches: readonly (Row & { readonly trained: number })[] }>, { rows, maxLength }: { readonly rows: number; readonly maxLength: number }): Generator<Row> {
  let waiting: Row[] = [];
  for (const { batches } of steps) {
    for (const batch of batches) {
      if (batch.trained === 0) continue;
      waiting.push(batch);
      if (waiting.length < rows) continue;
      yield* joinRows(waiting, rows);
      waiting = [];
    }
  }
  if (waiting.length === 0) return;
  const padding = paddingRow(waiting[0]!, maxLength);
  yield* joinRows([...waiting, ...Array.from({ length: rows - waiting.length }, () => padding)], rows);
}

/** A row without a target. */
function paddingRow(like: Row, maxLength: number): Row {
  const capacity = like.tokens.length;
  // No segment is longer than the longest sample; there are never fewer entries than that takes.
  const starts = like.starts.map((_, s) => Math.min(capacity, s * maxLength));
  return { tokens: new Int32Array(capacity), targets: new Int32Array(capacity).fill(-100), positions: Int32Array.from({ length: capacity }, (_, t) => t % maxLength), starts, samples: [] };
}

function joined(batches: readonly Row[]): Row {
  const capacity = batches[0]!.tokens.length;
  const join = (name: 'tokens' | 'targets' | 'positions'): Int32Array => {
    const all = new Int32Array(batches.length * capacity);
    batches.forEach((batch, r) => all.set(batch[name], r * capacity));
    return all;
  };
  const segments = batches.reduce((n, { starts }) => n + starts.length - 1, 0);
  const starts = new Int32Array(segments + 1).fill(batches.length * capacity);
  let at = 0;
  batches.forEach((batch, r) => {
    for (const start of batch.starts) if (start < capacity) starts[at++] = r * capacity + start;
  });
  return { tokens: join('tokens'), targets: join('targets'), positions: join('positions'), starts, samples: batches.flatMap(({ samples }) => samples) };
}
