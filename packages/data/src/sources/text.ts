// Plain text: documents between separators, or the whole file as one document.
import type { BadLines } from './bad-lines.ts';
import { readLines } from './lines.ts';
import type { Source, SourceRecord } from './source.ts';
import { DataError } from '../errors.ts';

/** Documents of a text file as rows `{ text }`, stripped, without the empty ones; a bad line is left out of its document when `bad` lets it pass. */
export async function* readText(source: Source, bad: BadLines, maxBytes: number): AsyncGenerator<SourceRecord, void, undefined> {
  const separator = source.separator === undefined ? '\n\n' : source.separator;
  if (separator === '') throw new DataError('BadOption', `${source.path}: separator is empty, expected a string, or null for the whole file as one document`);
  let parts: string[] = [];
  let size = 0;
  let start = 1;
  // The tail of what was read that may be the beginning of a separator; keeping it short makes the scan linear.
  let pending = '';

  const take = (): SourceRecord | null => {
    const text = parts.join('').trim();
    const tooLong = size > maxBytes;
    const line = start;
    parts = [];
    size = 0;
    if (tooLong) {
      bad.add(line, `the document starting here has over ${maxBytes} characters, expected at most that (set separator, or raise maxRecordBytes)`);
      return null;
    }
    return text === '' ? null : { line, row: { text } };
  };
  const add = (text: string, line: number): void => {
    if (size === 0 || (parts.length === 0 && size <= maxBytes)) start = line;
    size += text.length;
    if (size > maxBytes) parts = [];
    else if (parts.length > 0 || text.trim() !== '') parts.push(text);
  };

  for await (const line of readLines(source.path, maxBytes)) {
    if (line.problem !== undefined) {
      bad.add(line.number, line.problem);
      continue;
    }
    if (separator === null) {
      add(`${line.text}\n`, line.number);
      continue;
    }
    const pieces = `${pending}${line.text}\n`.split(separator);
    const last = pieces.pop() ?? '';
    for (const piece of pieces) {
      add(piece, line.number);
      const record = take();
      if (record !== null) yield record;
    }
    const cut = Math.max(0, last.length - separator.length + 1);
    pending = last.slice(cut);
    if (cut > 0) add(last.slice(0, cut), line.number);
  }
  add(pending, start);
  const record = take();
  if (record !== null) yield record;
}
