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
  let pendingLine = 1;

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
  const add = (text: string, lineAt: (offset: number) => number): void => {
    const blank = text.length - text.trimStart().length;
    if (parts.length === 0 && size <= maxBytes) {
      if (blank === text.length) return;
      start = lineAt(blank);
    }
    size += text.length;
    if (size > maxBytes) parts = [];
    else parts.push(text);
  };

  for await (const line of readLines(source.path, maxBytes)) {
    if (line.problem !== undefined) {
      bad.add(line.number, line.problem);
      continue;
    }
    if (separator === null) {
      add(`${line.text}\n`, () => line.number);
      continue;
    }
    const read = `${pending}${line.text}\n`;
    const [held, heldLine] = [pending.length, pendingLine];
    const lineAt = (offset: number): number => (offset >= held ? line.number : heldLine + lineFeeds(read.slice(0, offset)));
    let at = 0;
    for (let end = read.indexOf(separator); end >= 0; end = read.indexOf(separator, at)) {
      const from = at;
      add(read.slice(from, end), (offset) => lineAt(from + offset));
      at = end + separator.length;
      const record = take();
      if (record !== null) yield record;
    }
    const from = at;
    const cut = Math.max(from, read.length - separator.length + 1);
    add(read.slice(from, cut), (offset) => lineAt(from + offset));
    pending = read.slice(cut);
    pendingLine = lineAt(cut);
  }
  add(pending, (offset) => pendingLine + lineFeeds(pending.slice(0, offset)));
  const record = take();
  if (record !== null) yield record;
}

function lineFeeds(text: string): number {
  return text.split('\n').length - 1;
}
