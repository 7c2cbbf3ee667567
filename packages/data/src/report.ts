// What a dataset and its steps amount to, as data and as text.
import type { Format } from './formats.ts';

/** One file, as read. */
export interface SourceReport {
  readonly path: string;
  readonly type: string;
  /** Detected or given; null when the file had no usable row. */
  readonly format: Format | null;
  readonly rows: number;
  /** Bad lines left out (onBadLine: 'skip'), and the first ten of them as `path:line: why`. */
  readonly skipped: number;
  readonly firstSkipped: readonly string[];
}

/** All samples, once each. */
export interface DatasetReport {
  readonly sources: readonly SourceReport[];
  readonly samples: number;
  readonly tokens: number;
  /** Tokens that are targets. */
  readonly trained: number;
  /** Tokens that are not: prompts, and the first of every sample. */
  readonly masked: number;
  readonly shortest: number;
  readonly longest: number;
  readonly mean: number;
  /** Samples by length: `upTo` tokens, powers of two. */
  readonly histogram: readonly { readonly upTo: number; readonly samples: number }[];
  /** Texts over maxSeqLength, and what was done with them. */
  readonly overlong: { readonly mode: string; readonly count: number };
  /** Samples left out because nothing in them was trained (after a cut, or with onBadLine: 'skip'). */
  readonly allMasked: number;
  /** Samples in which one token joins the end of the prompt and the start of the completion. */
  readonly straddling: number;
  /** SHA-256 of all samples. */
  readonly fingerprint: string;
}

/** All steps of a run, over all epochs. */
export interface StepsReport {
  readonly steps: number;
  readonly perEpoch: readonly number[];
  readonly epochs: number;
  readonly microBatches: number;
  readonly capacity: number;
  readonly maxSegments: number;
  readonly samples: number;
  readonly tokens: number;
  readonly trained: number;
  readonly masked: number;
  readonly padded: number;
  /** tokens / (steps x microBatches x capacity). */
  readonly efficiency: number;
}

/** Samples by length, up to each power of two from 16 on; buckets without samples at either end are left out. */
export function lengthHistogram(lengths: Int32Array): DatasetReport['histogram'] {
  const counts: number[] = [];
  for (const length of lengths) {
    const bucket = Math.max(0, Math.ceil(Math.log2(length)) - 4);
    while (counts.length <= bucket) counts.push(0);
    counts[bucket] = (counts[bucket] ?? 0) + 1;
  }
  const first = counts.findIndex((count) => count > 0);
  return counts.map((samples, bucket) => ({ upTo: 16 << bucket, samples })).slice(Math.max(0, first));
}

/** The reports as lines of text, for a terminal. */
export function renderReport(dataset: DatasetReport, steps?: StepsReport): string {
  const lines: string[] = [];
  for (const source of dataset.sources) {
    const keys = source.format === null ? '' : Object.entries(source.format.columns).map(([use, key]) => (use === key ? key : `${use} = ${key}`)).join(', ');
    lines.push(`${source.path}: ${source.type}, ${source.format?.name ?? 'no rows'}${keys === '' ? '' : ` (${keys})`}, ${number(source.rows)} rows${source.skipped === 0 ? '' : `, ${number(source.skipped)} bad lines skipped`}`);
    for (const skipped of source.firstSkipped) lines.push(`  skipped ${skipped}`);
  }
  lines.push(`samples    ${number(dataset.samples)}, ${number(dataset.shortest)} to ${number(dataset.longest)} tokens, ${dataset.mean.toFixed(1)} on average`);
  lines.push(`tokens     ${number(dataset.tokens)}: ${share(dataset.trained, dataset.tokens)} trained, ${share(dataset.masked, dataset.tokens)} masked`);
  if (dataset.overlong.count > 0) lines.push(`over-long  ${number(dataset.overlong.count)} texts (${dataset.overlong.mode})`);
  if (dataset.allMasked > 0) lines.push(`left out   ${number(dataset.allMasked)} samples with nothing to train`);
  if (dataset.straddling > 0) lines.push(`warning    in ${number(dataset.straddling)} samples a token joins the prompt's end and the completion's start; end the prompt with a line feed, or start the completion with a space`);
  const most = Math.max(...dataset.histogram.map((bucket) => bucket.samples));
  for (const { upTo, samples } of dataset.histogram) lines.push(`  <= ${String(upTo).padStart(7)}  ${number(samples).padStart(9)}  ${'#'.repeat(Math.ceil((samples / most) * 40))}`);
  if (steps !== undefined) {
    lines.push(`steps      ${number(steps.steps)} (${steps.epochs} epoch${steps.epochs === 1 ? '' : 's'}), each ${steps.microBatches} x ${number(steps.capacity)} tokens`);
    lines.push(`in all     ${number(steps.trained)} tokens trained, ${number(steps.masked)} masked, ${number(steps.padded)} padded; packing efficiency ${(steps.efficiency * 100).toFixed(1)} %`);
  }
  return lines.join('\n');
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}

function share(part: number, whole: number): string {
  return `${number(part)} (${whole === 0 ? '0.0' : ((part / whole) * 100).toFixed(1)} %)`;
}
