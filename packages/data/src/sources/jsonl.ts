// JSONL: one JSON object a line; blank lines are allowed.
import type { BadLines } from './bad-lines.ts';
import { readLines } from './lines.ts';
import type { SourceRecord } from './source.ts';

/**
 * Brackets, commas and colons outside of strings that one line may have. Each may become an object of a hundred bytes and more, so that a line of
 * 64 MiB could fill the heap; no row that is trained on comes near.
 */
export const rowParts = 1_000_000;

/** Records of a JSONL file, in order; every line that is no JSON object goes to `bad`. */
export async function* readJsonl(path: string, bad: BadLines, maxBytes: number): AsyncGenerator<SourceRecord, void, undefined> {
  for await (const line of readLines(path, maxBytes)) {
    if (line.problem !== undefined) {
      bad.add(line.number, line.problem);
      continue;
    }
    if (line.text.trim() === '') continue;
    if (line.text.length > rowParts && hasManyParts(line.text)) {
      bad.add(line.number, `over ${rowParts} brackets, commas and colons, expected at most that in one JSON object`);
      continue;
    }
    let value: unknown;
    try {
      value = JSON.parse(line.text);
    } catch (cause) {
      bad.add(line.number, `invalid JSON (${cause instanceof Error ? cause.message.slice(0, 300) : String(cause)}), expected one JSON object a line`);
      continue;
    }
    if (isRow(value)) yield { line: line.number, row: value };
    else bad.add(line.number, `${Array.isArray(value) ? 'a JSON array' : value === null ? 'null' : `a JSON ${typeof value}`}, expected a JSON object`);
  }
}

/** Counts in one sweep what a parser would make values of; strings are skipped, escapes in them too. */
function hasManyParts(text: string): boolean {
  let parts = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 0x22) {
      for (at++; at < text.length && text.charCodeAt(at) !== 0x22; at++) if (text.charCodeAt(at) === 0x5c) at++;
    } else if ((code === 0x2c || code === 0x3a || code === 0x5b || code === 0x7b) && ++parts > rowParts) return true;
  }
  return false;
}

function isRow(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
