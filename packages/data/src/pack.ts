// Lays an epoch's samples into steps and micro-batches, from lengths alone: deterministic, every sample exactly once. Work that stops after every step.
import type { Work } from './turns.ts';

/** Where each sample of an epoch goes. Samples of step s are `samples[stepStarts[s] .. stepStarts[s + 1]]`, in order; `bins` is the micro-batch of each. */
export interface Layout {
  readonly stepStarts: Int32Array;  // [steps + 1]
  readonly samples: Int32Array;     // [samples placed]
  readonly bins: Int32Array;        // [samples placed]
  /** Most micro-batches that any step uses. */
  readonly needed: number;
}

/** What the packers need to know of the samples. */
export interface Lengths {
  readonly order: Int32Array;
  /** By sample, not by place in the order. */
  readonly lengths: Int32Array;
}

/**
 * Fills `microBatches` bins of `capacity` tokens per step, in order, best fit. When a sample does not fit, up to `window` samples behind it may
 * fill the gaps; those passed over open the next step. Every length must be at most `capacity`.
 */
export function* packTokens({ order, lengths }: Lengths, options: { readonly capacity: number; readonly microBatches: number; readonly window: number }): Work<Layout> {
  const { capacity, microBatches, window } = options;
  const builder = new LayoutBuilder(order.length);
  let waiting: number[] = [];
  let next = 0;
  while (waiting.length > 0 || next < order.length) {
    const room = Array.from({ length: microBatches }, () => capacity);
    const passed: number[] = [];
    let looked = 0;
    while (passed.length <= window && (looked < waiting.length || next < order.length)) {
      const sample = looked < waiting.length ? waiting[looked++] : order[next++];
      if (sample === undefined) break;
      const bin = bestBin(room, lengths[sample] ?? 0);
      if (bin < 0) {
        passed.push(sample);
        continue;
      }
      room[bin] = (room[bin] ?? 0) - (lengths[sample] ?? 0);
      builder.place(sample, bin);
    }
    waiting = [...passed, ...waiting.slice(looked)];
    builder.endStep();
    yield;
  }
  return builder.finish();
}

/** Exactly `sequences` samples a step (the last may have fewer), packed best-fit decreasing into as few bins of `capacity` tokens as that finds. */
export function* packSequences({ order, lengths }: Lengths, options: { readonly capacity: number; readonly sequences: number }): Work<Layout> {
  const builder = new LayoutBuilder(order.length);
  for (let from = 0; from < order.length; from += options.sequences) {
    const step = order.subarray(from, from + options.sequences);
    const room: number[] = [];
    const bins = new Int32Array(step.length);
    const byLength = [...step.keys()].sort((a, b) => (lengths[step[b] ?? 0] ?? 0) - (lengths[step[a] ?? 0] ?? 0) || a - b);
    for (const place of byLength) {
      const length = lengths[step[place] ?? 0] ?? 0;
      let bin = bestBin(room, length);
      if (bin < 0) bin = room.push(options.capacity) - 1;
      room[bin] = (room[bin] ?? 0) - length;
      bins[place] = bin;
    }
    step.forEach((sample, place) => builder.place(sample, bins[place] ?? 0));
    builder.endStep();
    yield;
  }
  return builder.finish();
}

/** One sample a row, `rows` rows a bin, `sequences` samples a step. */
export function* packRows({ order }: Pick<Lengths, 'order'>, options: { readonly rows: number; readonly sequences: number }): Work<Layout> {
  const builder = new LayoutBuilder(order.length);
  for (const [i, sample] of order.entries()) {
    const place = i % options.sequences;
    builder.place(sample, Math.floor(place / options.rows));
    if (place < options.sequences - 1 && i < order.length - 1) continue;
    builder.endStep();
    yield;
  }
  return builder.finish();
}

/** The bin with the least room that still fits; the first of equals; -1 for none. */
function bestBin(room: readonly number[], length: number): number {
  let best = -1;
  let least = Infinity;
  room.forEach((free, bin) => {
    if (free >= length && free < least) {
      best = bin;
      least = free;
    }
  });
  return best;
}

class LayoutBuilder {
  private readonly samples: Int32Array;
  private readonly bins: Int32Array;
  private readonly stepStarts: number[] = [0];
  private placed = 0;
  private needed = 0;

  constructor(samples: number) {
    this.samples = new Int32Array(samples);
    this.bins = new Int32Array(samples);
  }

  place(sample: number, bin: number): void {
    this.samples[this.placed] = sample;
    this.bins[this.placed] = bin;
    this.placed += 1;
    this.needed = Math.max(this.needed, bin + 1);
  }

  endStep(): void { this.stepStarts.push(this.placed); }

  finish(): Layout {
    return { stepStarts: Int32Array.from(this.stepStarts), samples: this.samples, bins: this.bins, needed: this.needed };
  }
}
