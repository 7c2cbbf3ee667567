// One decoded sample with its mask, as text: what a person looks at before step 1.
import type { Batch } from './batch.ts';
import { DataError } from './errors.ts';
import { ignored } from './mask.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';

/** How a sample is shown. */
export interface DescribeOptions {
  readonly tokenizer: Tokenizer;
  /** Which sample of the batch, from 0; default 0. */
  readonly sample?: number;
  /** ANSI colours (masked grey, trained green); default false. Every line is marked with `-` or `+` in either case. */
  readonly colour?: boolean;
  /** Names the sample's origin from its dataset index, as `dataset.where`. */
  readonly where?: (index: number) => string;
}

/**
 * A heading, then the text with special tokens written out: lines after `+ ` are trained, lines after `- ` are masked. Throws DataError BadOption where the
 * batch has no such sample.
 */
export async function describe(batch: Batch, options: DescribeOptions): Promise<string> {
  const { tokenizer, sample = 0, colour = false, where } = options;
  const [start, end] = segmentOf(batch, sample);
  const ids = batch.tokens.subarray(start, end);
  const isTrained = (t: number): boolean => t > 0 && batch.targets[start + t - 1] !== ignored;
  const ends: number[] = [];
  for (let t = 1; t <= ids.length; t += 1) if (t === ids.length || isTrained(t) !== isTrained(t - 1)) ends.push(t);
  // Each run's text is what it adds to the text before it: decoded alone, it would lose spaces and split characters.
  const texts = await tokenizer.decodeAll(ends.map((to) => ids.subarray(0, to)));
  const index = batch.samples[sample] ?? 0;
  let trained = 0;
  for (let t = 1; t < ids.length; t += 1) if (isTrained(t)) trained += 1;
  const lines = [`sample ${index}${where === undefined ? '' : `, ${where(index)}`}: ${ids.length} tokens, ${trained} trained (+), ${ids.length - trained} masked (-)`];
  ends.forEach((to, run) => {
    const counts = isTrained(to - 1);
    const text = (texts[run] ?? '').slice((texts[run - 1] ?? '').length);
    const [on, off] = colour ? [counts ? '\u001B[32m' : '\u001B[90m', '\u001B[39m'] : ['', ''];
    for (const line of visible(text).split('\n')) lines.push(`${on}${counts ? '+' : '-'} ${line}${off}`);
  });
  return lines.join('\n');
}

function segmentOf(batch: Batch, sample: number): readonly [number, number] {
  let seen = 0;
  for (let segment = 0; segment + 1 < batch.starts.length; segment += 1) {
    const [start, end] = [batch.starts[segment] ?? 0, batch.starts[segment + 1] ?? 0];
    // Padding segments have no targets; samples always have.
    if (!batch.targets.subarray(start, end).some((target) => target !== ignored)) continue;
    if (seen === sample) return [start, end];
    seen += 1;
  }
  throw new DataError('BadOption', `describe: sample ${sample} of a batch with ${seen} samples (they count from 0)`);
}

/** Line feeds are shown where a run ends with one; other control characters could move the cursor or colour the terminal. */
function visible(text: string): string {
  return text.replace(/\n$/, '\u21B5').replace(/(?![\n\t])\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
