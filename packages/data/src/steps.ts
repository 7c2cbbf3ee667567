// The optimizer steps of a run: laid out from lengths once, then any step is produced directly.
import { buildBatch, countSegments } from './batch.ts';
import type { Batch, BatchShape } from './batch.ts';
import { DataError } from './errors.ts';
import { packRows, packSequences, packTokens } from './pack.ts';
import type { Layout } from './pack.ts';
import type { StepsReport } from './report.ts';
import type { Sample } from './store.ts';
import { atOnce, inTurns } from './turns.ts';
import type { Work } from './turns.ts';

/** How a run is cut into steps. */
export interface StepsOptions {
  /** Tokens of a micro-batch, padding included: a multiple of 64, at least the longest sample; without packing a multiple of maxSeqLength. */
  readonly capacity: number;
  /**
   * Micro-batches of every step. With `sequencesPerStep` it may be left out: the fewest that hold every step of the run. Without, a step takes as many
   * samples as fit (default 1).
   */
  readonly microBatches?: number;
  /** Exactly so many samples a step (global_batch_size); the last step of an epoch may have fewer. */
  readonly sequencesPerStep?: number;
  /** Default 1. */
  readonly epochs?: number;
  /** Total steps, over as many epochs as that takes; overrides `epochs`. */
  readonly maxSteps?: number;
  /** Default true: several samples a row, block-diagonal. False: one sample a row of maxSeqLength. */
  readonly packing?: boolean;
  /** Default true: a new order every epoch. False: the order of the files. */
  readonly shuffle?: boolean;
  /** How many samples may be passed over to fill a step (without sequencesPerStep); default 64, 0 keeps the order exactly. */
  readonly window?: number;
  /**
   * Default keep: the last step of an epoch may have fewer samples, its missing micro-batches are padding. drop leaves it out (when it has fewer than
   * sequencesPerStep; always when steps are filled by tokens), unless it is the only one.
   */
  readonly lastStep?: 'keep' | 'drop';
  /** Entries of `starts` less one; default: the most that any batch of the run needs. */
  readonly maxSegments?: number;
}

/** One optimizer step. */
export interface Step {
  /** From 0, over all epochs. */
  readonly index: number;
  readonly epoch: number;
  /** `microBatches` of them, always; the last ones may be all padding. */
  readonly batches: readonly Batch[];
  /** Targets of all batches: what the summed loss is divided by. */
  readonly trained: number;
  /** Dataset indices of all samples. */
  readonly samples: readonly number[];
}

/** What a run's steps are cut from. */
export interface StepsInput {
  readonly lengths: Int32Array;
  readonly targets: Int32Array;
  readonly maxSeqLength: number;
  readonly padId: number;
  sampleAt(index: number): Sample;
  order(epoch: number, shuffle: boolean): Work<Int32Array>;
}

/** One epoch's layout; epochs without a shuffle are all epoch 0. */
interface LaidEpoch {
  readonly epoch: number;
  readonly layout: Layout;
}

/** What a run's steps come to, and the epoch that was laid out last. */
interface Laid {
  readonly totals: StepsReport;
  readonly latest: LaidEpoch | null;
}

/** All steps of a run, in order; iterable. A step is a pure function of the dataset, its seed, these options and the step's index. */
export class Steps implements Iterable<Step> {
  /** Steps of the whole run. */
  readonly length: number;
  /** Steps of each epoch. */
  readonly perEpoch: readonly number[];
  readonly capacity: number;
  readonly microBatches: number;
  readonly maxSegments: number;
  private readonly input: StepsInput;
  private readonly options: StepsOptions;
  private readonly shape: BatchShape;
  private readonly totals: StepsReport;
  private latest: LaidEpoch | null;

  /** Made by `atOnce`, `inTurns` and `widened`. */
  private constructor(input: StepsInput, options: StepsOptions, { totals, latest }: Laid) {
    this.input = input;
    this.options = options;
    this.latest = latest;
    this.totals = totals;
    this.capacity = totals.capacity;
    this.perEpoch = totals.perEpoch;
    this.length = totals.steps;
    this.microBatches = totals.microBatches;
    this.maxSegments = totals.maxSegments;
    this.shape = { ...openShape(input, options), maxSegments: this.maxSegments, padId: input.padId };
  }

  /** Lays all epochs out in one go, about a second of one core a million samples. Throws DataError BadOption, CapacityTooSmall, MicroBatchesTooFew or SegmentsTooMany. */
  static atOnce(input: StepsInput, options: StepsOptions): Steps {
    return new Steps(input, options, atOnce(layingOut(input, options)));
  }

  /** The same steps, laid out in turns of milliseconds, between which timers and signals have theirs. Throws the same, and the signal's reason. */
  static async inTurns(input: StepsInput, options: StepsOptions, signal: AbortSignal | null = null): Promise<Steps> {
    return new Steps(input, options, await inTurns(layingOut(input, options), signal));
  }

  /** The same steps in batches whose `starts` have room for `maxSegments`, which is at least as many as before; nothing is laid out again. */
  widened(maxSegments: number): Steps {
    checkSegments(maxSegments, this.maxSegments);
    return new Steps(this.input, { ...this.options, maxSegments }, { totals: { ...this.totals, maxSegments }, latest: this.latest });
  }

  /** Step `index`, directly. Throws DataError StepOutOfRange. */
  at(index: number): Step {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) throw new DataError('StepOutOfRange', `step ${index} of ${this.length} (steps count from 0)`);
    const { epoch, inside } = this.place(index);
    if (this.latest?.epoch !== keyOf(epoch, this.options)) this.latest = atOnce(layingEpoch(this.input, this.options, epoch));
    const bins = binsOf(this.latest.layout, inside);
    const batches = Array.from({ length: this.microBatches }, (_, bin) => buildBatch((bins[bin] ?? []).map((sample) => this.input.sampleAt(sample)), this.shape));
    return { index, epoch, batches, trained: batches.reduce((sum, batch) => sum + batch.trained, 0), samples: batches.flatMap((batch) => batch.samples) };
  }

  /** Lays out the epoch of step `index` in turns, unless that is done: `at` is then cheap for every step of it. Throws the signal's reason. */
  async prepare(index: number, signal: AbortSignal | null = null): Promise<void> {
    const { epoch } = this.place(index);
    if (this.latest?.epoch !== keyOf(epoch, this.options)) this.latest = await inTurns(layingEpoch(this.input, this.options, epoch), signal);
  }

  /** Steps from `index` on, as after a resume; `index` = length gives none. */
  *from(index: number): Generator<Step, void, undefined> {
    for (let i = index; i < this.length; i += 1) yield this.at(i);
  }

  [Symbol.iterator](): Iterator<Step> { return this.from(0); }

  /** Totals of the run: steps, tokens trained, masked and padded, packing efficiency. */
  report(): StepsReport { return this.totals; }

  /** The epoch of step `index`, and its number in it. */
  private place(index: number): { readonly epoch: number; readonly inside: number } {
    let epoch = 0;
    let inside = index;
    for (let steps = this.perEpoch[epoch]; steps !== undefined && inside >= steps; steps = this.perEpoch[epoch]) {
      inside -= steps;
      epoch += 1;
    }
    return { epoch, inside };
  }
}

/** All epochs of a run, each as often as its steps are to be counted. */
function* layingOut(input: StepsInput, options: StepsOptions): Work<Laid> {
  checkOptions(input, options);
  const open = openShape(input, options);
  const { capacity } = options;
  const perEpoch: number[] = [];
  let latest: LaidEpoch | null = null;
  let microBatches = options.microBatches ?? 1;
  let segments = countSegments([], open);
  let [done, tokens, trained, samples] = [0, 0, 0, 0];
  const wanted = options.maxSteps ?? Infinity;
  const epochs = options.maxSteps === undefined ? options.epochs ?? 1 : Infinity;
  for (let epoch = 0; epoch < epochs && done < wanted; epoch += 1) {
    if (latest?.epoch !== keyOf(epoch, options)) latest = yield* layingEpoch(input, options, epoch);
    const { layout }: LaidEpoch = latest;
    const steps = Math.min(layout.stepStarts.length - 1, wanted - done);
    if (options.microBatches !== undefined && layout.needed > options.microBatches) {
      throw new DataError('MicroBatchesTooFew', `a step of epoch ${epoch} needs ${layout.needed} micro-batches of ${capacity} tokens for its ${options.sequencesPerStep} sequences, microBatches is ${options.microBatches}: set it to ${layout.needed}, raise capacity, or leave microBatches out`, { needed: layout.needed });
    }
    microBatches = Math.max(microBatches, layout.needed);
    for (let step = 0; step < steps; step += 1) {
      for (const bin of binsOf(layout, step)) {
        const lengths = bin.map((sample) => input.lengths[sample] ?? 0);
        segments = Math.max(segments, countSegments(lengths, open));
        tokens += lengths.reduce((sum, length) => sum + length, 0);
        for (const sample of bin) trained += input.targets[sample] ?? 0;
        samples += bin.length;
      }
      yield;
    }
    perEpoch.push(steps);
    done += steps;
  }
  if (options.maxSegments !== undefined) checkSegments(options.maxSegments, segments);
  const slots = done * microBatches * capacity;
  const maxSegments = options.maxSegments ?? segments;
  return { latest, totals: { steps: done, perEpoch, epochs: perEpoch.length, microBatches, capacity, maxSegments, samples, tokens, trained, masked: tokens - trained, padded: slots - tokens, efficiency: slots === 0 ? 0 : tokens / slots } };
}

function* layingEpoch(input: StepsInput, options: StepsOptions, epoch: number): Work<LaidEpoch> {
  const { capacity, sequencesPerStep, packing = true, shuffle = true, window = 64, lastStep = 'keep', microBatches = 1 } = options;
  const key = keyOf(epoch, options);
  const order = yield* input.order(key, shuffle);
  const { lengths } = input;
  const rows = capacity / input.maxSeqLength;
  const laid = yield* !packing ? packRows({ order }, { rows, sequences: sequencesPerStep ?? microBatches * rows })
    : sequencesPerStep !== undefined ? packSequences({ order, lengths }, { capacity, sequences: sequencesPerStep })
      : packTokens({ order, lengths }, { capacity, microBatches, window });
  const last = (laid.stepStarts.at(-1) ?? 0) - (laid.stepStarts.at(-2) ?? 0);
  const full = packing && sequencesPerStep === undefined ? Infinity : sequencesPerStep ?? microBatches * rows;
  const layout = lastStep === 'drop' && laid.stepStarts.length > 2 && last < full ? { ...laid, stepStarts: laid.stepStarts.subarray(0, -1) } : laid;
  return { epoch: key, layout };
}

/** Epochs without a shuffle are one. */
function keyOf(epoch: number, { shuffle = true }: StepsOptions): number {
  return shuffle ? epoch : 0;
}

function openShape(input: StepsInput, { capacity, packing }: StepsOptions): Omit<BatchShape, 'maxSegments' | 'padId'> {
  return { capacity, maxSeqLength: input.maxSeqLength, rowLength: packing === false ? input.maxSeqLength : null };
}

function checkSegments(maxSegments: number, needed: number): void {
  if (maxSegments >= needed) return;
  throw new DataError('SegmentsTooMany', `a batch has ${needed} segments, padding included, maxSegments is ${maxSegments}: set it to ${needed} or more, or leave it out`, { needed });
}

function binsOf(layout: Layout, step: number): readonly (readonly number[])[] {
  const bins: number[][] = [];
  for (let i = layout.stepStarts[step] ?? 0; i < (layout.stepStarts[step + 1] ?? 0); i += 1) {
    const bin = layout.bins[i] ?? 0;
    while (bins.length <= bin) bins.push([]);
    bins[bin]?.push(layout.samples[i] ?? 0);
  }
  return bins;
}

function checkOptions(input: StepsInput, options: StepsOptions): void {
  for (const name of ['capacity', 'microBatches', 'sequencesPerStep', 'epochs', 'maxSteps', 'maxSegments'] as const) {
    const value = options[name];
    if (value !== undefined && (!Number.isInteger(value) || value < 1)) throw new DataError('BadOption', `steps: ${name} is ${value}, expected a whole number from 1`);
  }
  if (options.window !== undefined && (!Number.isInteger(options.window) || options.window < 0)) throw new DataError('BadOption', `steps: window is ${options.window}, expected a whole number from 0`);
  if (options.capacity % 64 !== 0) throw new DataError('BadOption', `steps: capacity is ${options.capacity}, expected a multiple of 64: take ${Math.ceil(options.capacity / 64) * 64}`);
  if (options.packing === false && options.capacity % input.maxSeqLength !== 0) {
    throw new DataError('BadOption', `steps: capacity is ${options.capacity}, expected a multiple of maxSeqLength ${input.maxSeqLength} without packing (one sample a row)`);
  }
  let longest = 0;
  for (let i = 1; i < input.lengths.length; i += 1) if ((input.lengths[i] ?? 0) > (input.lengths[longest] ?? 0)) longest = i;
  const tokens = input.lengths[longest] ?? 0;
  if (tokens > options.capacity) {
    throw new DataError('CapacityTooSmall', `steps: capacity is ${options.capacity} tokens, but the sample at ${input.sampleAt(longest).where} has ${tokens}: raise capacity to ${Math.ceil(tokens / 64) * 64}, or lower maxSeqLength`, { longest: tokens });
  }
}
