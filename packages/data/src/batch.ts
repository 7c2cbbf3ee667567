// Batch: one micro-batch of a fixed token capacity, as typed arrays ready for the device.
import { ignored, writeTargets } from './mask.ts';
import type { Sample } from './store.ts';

/**
 * Block-diagonal tokens: segment i is `starts[i] .. starts[i + 1]`, attention never leaves it, positions restart in it. Every token lies in exactly one
 * segment; padding has segments of its own, without targets. No segment is longer than max_seq_length.
 */
export interface Batch {
  readonly tokens: Int32Array;      // [capacity]
  /** The id to predict at each position (already shifted), or -100. */
  readonly targets: Int32Array;     // [capacity]
  readonly positions: Int32Array;   // [capacity]
  /** Cumulative segment starts, from 0; entries past the last segment are `capacity`. */
  readonly starts: Int32Array;      // [maxSegments + 1]
  /** Number of targets that are not -100. */
  readonly trained: number;
  /** Dataset indices of the samples, in the order of their segments. */
  readonly samples: readonly number[];
}

/** The shape that all batches of a run share. */
export interface BatchShape {
  readonly capacity: number;
  readonly maxSegments: number;
  /** Longest segment, padding included. */
  readonly maxSeqLength: number;
  /** Packed when null; else one sample a row of this many tokens. */
  readonly rowLength: number | null;
  readonly padId: number;
}

/** Lays samples out in one batch. They fit: the packer has seen to it. */
export function buildBatch(samples: readonly Sample[], shape: BatchShape): Batch {
  const { capacity, rowLength } = shape;
  const tokens = new Int32Array(capacity).fill(shape.padId);
  const targets = new Int32Array(capacity).fill(ignored);
  const positions = new Int32Array(capacity);
  const starts = new Int32Array(shape.maxSegments + 1).fill(capacity);
  let segments = 0;
  let at = 0;
  let trained = 0;
  const segment = (length: number): void => {
    starts[segments] = at;
    segments += 1;
    for (let t = 0; t < length; t += 1) positions[at + t] = t;
    at += length;
  };
  const pad = (end: number): void => {
    while (at < end) segment(Math.min(shape.maxSeqLength, end - at));
  };
  for (const [i, sample] of samples.entries()) {
    tokens.set(sample.ids, at);
    trained += writeTargets(targets, at, sample);
    segment(sample.ids.length);
    if (rowLength !== null) pad((i + 1) * rowLength);
  }
  if (rowLength === null) pad(capacity);
  else while (at < capacity) pad(at + rowLength);
  return { tokens, targets, positions, starts, trained, samples: samples.map((sample) => sample.index) };
}

/** How many segments a batch of these sample lengths has, padding included. */
export function countSegments(lengths: readonly number[], shape: Omit<BatchShape, 'maxSegments' | 'padId'>): number {
  const { capacity, rowLength, maxSeqLength } = shape;
  const padding = (tokens: number): number => Math.ceil(tokens / maxSeqLength);
  if (rowLength === null) return lengths.length + padding(capacity - lengths.reduce((sum, length) => sum + length, 0));
  const rows = capacity / rowLength;
  return lengths.reduce((sum, length) => sum + 1 + padding(rowLength - length), 0) + (rows - lengths.length) * padding(rowLength);
}
