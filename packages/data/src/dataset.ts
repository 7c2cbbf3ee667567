// openDataset: files in, samples and steps out, every one a pure function of (seed, epoch, index).
import { DataError } from './errors.ts';
import { Ingest } from './ingest.ts';
import type { Overlong } from './ingest.ts';
import { lengthHistogram } from './report.ts';
import type { DatasetReport } from './report.ts';
import { fileOrder, shuffling } from './shuffle.ts';
import type { OnBadLine } from './sources/bad-lines.ts';
import type { Source } from './sources/source.ts';
import { Steps } from './steps.ts';
import type { StepsOptions } from './steps.ts';
import { SampleStore } from './store.ts';
import type { Sample } from './store.ts';
import { checkTemplate, defaultTemplate } from './template.ts';
import type { Template } from './template.ts';
import { atOnce, inTurns } from './turns.ts';
import type { Work } from './turns.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';

/** What a dataset is made of. */
export interface DatasetOptions {
  /** Files in order; a string is a path. */
  readonly sources: string | readonly (string | Source)[];
  readonly tokenizer: Tokenizer;
  /** Longest sample in tokens; default 2048. */
  readonly maxSeqLength?: number;
  /** Default fail, with counts. split cuts into pieces that share one token, so that every target is trained once. */
  readonly overlong?: Overlong;
  /** Default fail: the first unusable line stops with `path:line`. skip leaves such lines, and samples with nothing to train, out and counts them. */
  readonly onBadLine?: OnBadLine;
  /** Default false: prompts are masked. */
  readonly trainOnInputs?: boolean;
  /** Default: `{prompt}`, a line feed, `{completion}`. A source's own template wins. */
  readonly template?: Template;
  /** Default true: the end-of-text token is appended and trained. */
  readonly appendEos?: boolean;
  /** Default: the tokenizer's. */
  readonly eosId?: number;
  /** Default: the tokenizer's, else eosId, else 0. Padding is never trained nor attended to. */
  readonly padId?: number;
  /** Rows of the model's embedding; ids from there on are refused. */
  readonly vocabSize?: number;
  /** Largest line or document accepted; default 64 MiB. */
  readonly maxRecordBytes?: number;
  /** data_seed, default 42: orders are a pure function of it and the epoch. */
  readonly seed?: number;
  readonly signal?: AbortSignal;
  /** Called as samples are tokenized. */
  readonly onProgress?: (done: { readonly samples: number; readonly tokens: number }) => void;
}

/** What is left to choose of steps for evaluation. */
export type EvalStepsOptions = Pick<StepsOptions, 'capacity' | 'microBatches' | 'packing' | 'maxSegments'>;

/** A tokenized dataset, in memory (5 bytes a token). Nothing is tokenized again after it is open. */
export interface Dataset {
  /** Number of samples. */
  readonly length: number;
  readonly maxSeqLength: number;
  readonly seed: number;
  readonly padId: number;
  /** SHA-256 of all samples: a resume compares it, to know that the data are the same. */
  readonly fingerprint: string;
  /** The sample at place `index` of an epoch's shuffled order. O(1) after the epoch's first. */
  sample(epoch: number, index: number): Sample;
  /** The sample with dataset index `index`, in the order of the files. */
  at(index: number): Sample;
  /** `path:line` of dataset index `index`. */
  where(index: number): string;
  /** The optimizer steps of a run, over lengths only: about a second a million samples, in which nothing else happens. */
  steps(options: StepsOptions): Steps;
  /** The same, laid out in turns of milliseconds between which timers and signals have theirs. Throws the signal's reason. */
  layOut(options: StepsOptions, signal?: AbortSignal): Promise<Steps>;
  /** Steps for evaluation: every sample once, in the order of the files, with the same shapes. */
  evalSteps(options: EvalStepsOptions): Steps;
  /** The same, laid out in turns. */
  layOutEval(options: EvalStepsOptions, signal?: AbortSignal): Promise<Steps>;
  report(): DatasetReport;
}

/**
 * Reads, tokenizes and checks every sample. Throws DataError: MissingFile, BadLine, UnknownFormat, BadTemplate, BadOption, NoEndOfText, DoubleBos,
 * TokenOutOfRange, Overlong, AllMasked, EmptyDataset; or the signal's reason.
 */
export async function openDataset(options: DatasetOptions): Promise<Dataset> {
  const { tokenizer, maxSeqLength = 2048, overlong = 'fail', onBadLine = 'fail', trainOnInputs = false, template = defaultTemplate, appendEos = true, maxRecordBytes = 64 * 2 ** 20, seed = 42 } = options;
  if (!Number.isInteger(maxSeqLength) || maxSeqLength < 2) throw new DataError('BadOption', `openDataset: maxSeqLength is ${maxSeqLength}, expected a whole number from 2`);
  if (!Number.isSafeInteger(seed) || seed < 0) throw new DataError('BadOption', `openDataset: seed is ${seed}, expected a whole number from 0 to 2^53 - 1`);
  const eosId = options.eosId ?? tokenizer.eosId;
  if (appendEos && eosId === null) throw new DataError('NoEndOfText', `openDataset: the tokenizer of ${tokenizer.folder} names no eos_token, so that nothing would end a text: give eosId, or set appendEos: false`);
  const padId = options.padId ?? tokenizer.padId ?? eosId ?? 0;
  for (const [name, id] of [['eosId', appendEos ? eosId : null], ['padId', padId]] as const) {
    if (id !== null && options.vocabSize !== undefined && id >= options.vocabSize) throw new DataError('TokenOutOfRange', `openDataset: ${name} ${id} is outside the model's vocabulary of ${options.vocabSize}; give ${name}, or use the model's own tokenizer`, { id });
  }
  const listed = typeof options.sources === 'string' ? [options.sources] : options.sources;
  const sources = listed.map((source): Source => (typeof source === 'string' ? { path: source } : source));
  if (sources.length === 0) throw new DataError('EmptyDataset', 'openDataset: sources is empty, expected at least one file');
  for (const { template: own } of [{ template }, ...sources]) if (own !== undefined) checkTemplate(own);

  const store = new SampleStore();
  const ingest = new Ingest(store, {
    tokenizer, maxSeqLength, overlong, onBadLine, trainOnInputs, template, maxRecordBytes,
    eosId: appendEos ? eosId : null, vocabSize: options.vocabSize ?? null, signal: options.signal ?? null, onProgress: options.onProgress ?? null,
  });
  for (const source of sources) await ingest.read(source);
  ingest.finish();

  const lengths = store.lengths();
  const targets = store.targets();
  const fingerprint = await inTurns(store.fingerprint(), options.signal ?? null);
  const at = (index: number): Sample => {
    if (!Number.isInteger(index) || index < 0 || index >= store.length) throw new DataError('BadOption', `sample ${index} of a dataset of ${store.length} (samples count from 0)`);
    return store.at(index);
  };
  const order = orders(store.length, seed);
  const input = { lengths, targets, maxSeqLength, padId, sampleAt: at, order };
  const forEvaluation = (asked: EvalStepsOptions): StepsOptions => ({ ...asked, shuffle: false, window: 0, epochs: 1, lastStep: 'keep' });
  return {
    length: store.length, maxSeqLength, seed, padId, fingerprint, at,
    steps: (asked) => Steps.atOnce(input, asked),
    layOut: (asked, signal) => Steps.inTurns(input, asked, signal),
    sample: (epoch, index) => at(atOnce(order(epoch, true))[index] ?? index),
    where: (index) => at(index).where,
    evalSteps: (asked) => Steps.atOnce(input, forEvaluation(asked)),
    layOutEval: (asked, signal) => Steps.inTurns(input, forEvaluation(asked), signal),
    report: () => {
      const trained = targets.reduce((sum, count) => sum + count, 0);
      return {
        sources: ingest.sources, samples: store.length, tokens: store.tokens, trained, masked: store.tokens - trained,
        shortest: lengths.reduce((a, b) => Math.min(a, b), Infinity), longest: lengths.reduce((a, b) => Math.max(a, b), 0), mean: store.tokens / store.length,
        histogram: lengthHistogram(lengths), overlong: { mode: overlong, count: ingest.overlong }, allMasked: ingest.allMasked, straddling: ingest.straddling, fingerprint,
      };
    },
  };
}

/** Orders by epoch; the latest is kept, since neighbours in time ask for the same. */
function orders(length: number, seed: number): (epoch: number, shuffle: boolean) => Work<Int32Array> {
  let latest: { readonly key: number; readonly order: Int32Array } | null = null;
  return function* (epoch, shuffle) {
    const key = shuffle ? epoch : -1;
    if (latest?.key === key) return latest.order;
    if (shuffle && (!Number.isSafeInteger(epoch) || epoch < 0)) throw new DataError('BadOption', `epoch is ${epoch}, expected a whole number from 0`);
    const order = shuffle ? yield* shuffling(length, seed, epoch) : fileOrder(length);
    latest = { key, order };
    return order;
  };
}
