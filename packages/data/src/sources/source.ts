// One data file: its options, and the choice of reader by its type.
import { extname } from 'node:path';
import { DataError } from '../errors.ts';
import type { Columns } from '../formats.ts';
import type { Template } from '../template.ts';
import type { BadLines } from './bad-lines.ts';
import { readJsonl } from './jsonl.ts';
import { readText } from './text.ts';

/** How a file is read: JSON objects, one a line, or plain text. */
export type SourceType = 'jsonl' | 'text';

/** One file of a dataset. */
export interface Source {
  readonly path: string;
  /** Default: by the file name, `.jsonl` and `.ndjson`, or `.txt` and `.text`. */
  readonly type?: SourceType;
  /** jsonl: which keys hold what; default: detected from the keys of the first row. */
  readonly columns?: Columns;
  /** How prompt and completion become text; default: the dataset's template. */
  readonly template?: Template;
  /**
   * text: what separates documents; default a blank line ("\n\n"; line ends are already LF). `null` makes the whole file one document, which
   * usually wants `overlong: 'split'`. Documents are stripped of white space at both ends; empty ones are left out.
   */
  readonly separator?: string | null;
}

/** One record with the line it starts at; a text document is the row `{ text }`. */
export interface SourceRecord {
  readonly line: number;
  readonly row: Readonly<Record<string, unknown>>;
}

/** The type of a source, given or by its extension. Throws DataError BadOption for an unknown extension. */
export function sourceType(source: Source): SourceType {
  if (source.type !== undefined) return source.type;
  const extension = extname(source.path).toLowerCase();
  if (extension === '.jsonl' || extension === '.ndjson') return 'jsonl';
  if (extension === '.txt' || extension === '.text') return 'text';
  throw new DataError('BadOption', `${source.path}: cannot tell its type from the extension '${extension}', expected .jsonl, .ndjson, .txt or .text (or set type: 'jsonl' or 'text')`, { path: source.path });
}

/** Streams the records of one file; bad lines go to `bad`. Memory is bounded by `maxBytes`, the largest line or document accepted. */
export function readSource(source: Source, bad: BadLines, maxBytes: number): AsyncGenerator<SourceRecord, void, undefined> {
  return sourceType(source) === 'jsonl' ? readJsonl(source.path, bad, maxBytes) : readText(source, bad, maxBytes);
}
