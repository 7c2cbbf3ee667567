// From files to tokenized samples: read, detect, render, encode, mask, cut; everything refused before step 1 is refused here.
import { DataError } from './errors.ts';
import { detectFormat, readExample } from './formats.ts';
import type { Format } from './formats.ts';
import { countTargets, encodeExamples } from './mask.ts';
import type { MaskedIds } from './mask.ts';
import type { SourceReport } from './report.ts';
import { BadLines } from './sources/bad-lines.ts';
import type { OnBadLine } from './sources/bad-lines.ts';
import { readSource, sourceType } from './sources/source.ts';
import type { Source } from './sources/source.ts';
import type { SampleStore } from './store.ts';
import { renderExample } from './template.ts';
import type { Piece, Template } from './template.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';

/** What happens to texts over maxSeqLength. */
export type Overlong = 'fail' | 'truncate' | 'drop' | 'split';

/** Settings with every default filled in. */
export interface IngestOptions {
  readonly tokenizer: Tokenizer;
  readonly maxSeqLength: number;
  readonly overlong: Overlong;
  readonly onBadLine: OnBadLine;
  readonly trainOnInputs: boolean;
  readonly template: Template;
  readonly eosId: number | null;
  readonly vocabSize: number | null;
  readonly maxRecordBytes: number;
  readonly signal: AbortSignal | null;
  readonly onProgress: ((done: { readonly samples: number; readonly tokens: number }) => void) | null;
}

/** Reads sources into a store, counting as it goes. */
export class Ingest {
  /** Texts over maxSeqLength, and the first of them. */
  overlong = 0;
  /** Samples with nothing to train that were left out. */
  allMasked = 0;
  straddling = 0;
  readonly sources: SourceReport[] = [];
  private rows = 0;
  private longest = { tokens: 0, where: '' };
  private readonly masked: string[] = [];
  private readonly store: SampleStore;
  private readonly options: IngestOptions;

  constructor(store: SampleStore, options: IngestOptions) {
    this.store = store;
    this.options = options;
  }

  /** Reads one file to its end. Throws DataError (BadLine, UnknownFormat, BadTemplate, DoubleBos, TokenOutOfRange ...) or the signal's reason. */
  async read(source: Source): Promise<void> {
    const { onBadLine, maxRecordBytes, signal, template } = this.options;
    const bad = new BadLines(source.path, onBadLine);
    const path = this.store.addPath(source.path);
    let format: Format | null = null;
    let rows = 0;
    let waiting: { readonly pieces: readonly Piece[]; readonly line: number }[] = [];
    let characters = 0;
    const flush = async (): Promise<void> => {
      const batch = waiting;
      waiting = [];
      characters = 0;
      const encoded = await encodeExamples(batch.map((example) => example.pieces), this.options.tokenizer, this.options);
      encoded.forEach((sample, i) => this.accept(sample, { path, line: batch[i]?.line ?? 0, where: `${source.path}:${batch[i]?.line ?? 0}` }));
      this.options.onProgress?.({ samples: this.store.length, tokens: this.store.tokens });
    };
    for await (const { line, row } of readSource(source, bad, maxRecordBytes)) {
      signal?.throwIfAborted();
      const where = `${source.path}:${line}`;
      format ??= detectFormat(row, source.columns, where);
      const example = readExample(row, format);
      if (typeof example === 'string') {
        bad.add(line, example);
        continue;
      }
      const pieces = renderExample(example, source.template ?? template, where);
      rows += 1;
      waiting.push({ pieces, line });
      characters += pieces.reduce((sum, piece) => sum + piece.text.length, 0);
      // Enough for every thread of a tokenizer, little enough to hold.
      if (waiting.length >= 2048 || characters >= 1_000_000) await flush();
    }
    if (waiting.length > 0) await flush();
    this.rows += rows;
    this.sources.push({ path: source.path, type: sourceType(source), format, rows, skipped: bad.count, firstSkipped: bad.first });
  }

  /** After the last file: throws DataError Overlong, AllMasked or EmptyDataset. */
  finish(): void {
    const { overlong, maxSeqLength, onBadLine } = this.options;
    if (overlong === 'fail' && this.overlong > 0) {
      throw new DataError('Overlong', `${this.overlong} of ${this.rows} texts have over ${maxSeqLength} tokens (the longest, at ${this.longest.where}, has ${this.longest.tokens}): raise maxSeqLength, or set overlong: 'truncate', 'drop' or 'split'`, { count: this.overlong, longest: this.longest.tokens });
    }
    if (onBadLine === 'fail' && this.masked.length > 0) {
      throw new DataError('AllMasked', `${this.allMasked} of ${this.rows} samples have no token to train: ${this.masked.join(', ')}${this.allMasked > this.masked.length ? ', ...' : ''}. ${overlong === 'truncate' && this.overlong > 0 ? 'Truncation may have removed the completions (raise maxSeqLength). ' : ''}Correct them, or set onBadLine: 'skip' to leave them out and count them`, { count: this.allMasked });
    }
    if (this.store.length === 0) {
      const skipped = this.sources.reduce((sum, source) => sum + source.skipped, 0);
      throw new DataError('EmptyDataset', `no samples in ${this.sources.map((source) => source.path).join(', ')}: ${this.rows} rows read, ${skipped} bad lines skipped, ${overlong === 'drop' ? this.overlong : 0} dropped as over-long, ${this.allMasked} without anything to train. Check the paths, and what onBadLine and overlong leave out`);
    }
  }

  private accept(sample: MaskedIds, place: { readonly path: number; readonly line: number; readonly where: string }): void {
    const { maxSeqLength, overlong } = this.options;
    this.check(sample.ids, place.where);
    if (sample.straddles) this.straddling += 1;
    const { ids, trained } = sample;
    if (ids.length <= maxSeqLength) {
      this.add(ids, trained, place);
      return;
    }
    this.overlong += 1;
    if (ids.length > this.longest.tokens) this.longest = { tokens: ids.length, where: place.where };
    if (overlong === 'truncate') this.add(ids.subarray(0, maxSeqLength), trained.subarray(0, maxSeqLength), place);
    if (overlong !== 'split') return;
    // Chunks share one token, so that every target of the text is trained exactly once.
    for (let from = 0; from < ids.length - 1; from += maxSeqLength - 1) {
      const mask = trained.slice(from, from + maxSeqLength);
      mask[0] = 0;
      if (countTargets(mask) > 0) this.store.add(ids.subarray(from, from + maxSeqLength), mask, place);
    }
    if (countTargets(trained) === 0) this.leaveOut(place.where);
  }

  private add(ids: Int32Array, trained: Uint8Array, place: { readonly path: number; readonly line: number; readonly where: string }): void {
    if (countTargets(trained) === 0) this.leaveOut(place.where);
    else this.store.add(ids, trained, place);
  }

  private leaveOut(where: string): void {
    this.allMasked += 1;
    if (this.masked.length < 10) this.masked.push(where);
  }

  private check(ids: Int32Array, where: string): void {
    const { vocabSize, tokenizer } = this.options;
    if (tokenizer.bosId !== null && ids[0] === tokenizer.bosId && ids[1] === tokenizer.bosId && tokenizer.bosId !== tokenizer.eosId) {
      throw new DataError('DoubleBos', `${where}: the text begins with the beginning-of-sequence token, which the tokenizer adds too: remove it from the template or the data`);
    }
    if (vocabSize === null) return;
    for (const id of ids) {
      if (id >= vocabSize) throw new DataError('TokenOutOfRange', `${where}: token id ${id} is outside the model's vocabulary of ${vocabSize}; the tokenizer (${tokenizer.folder}, ${tokenizer.vocabSize} tokens) belongs to another model, or the model's embedding was not resized`, { id, vocabSize });
    }
  }
}
