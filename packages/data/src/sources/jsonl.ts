// JSONL: one JSON object a line; blank lines are allowed.
import type { BadLines } from './bad-lines.ts';
import { readLines } from './lines.ts';
import type { SourceRecord } from './source.ts';

/** Records of a JSONL file, in order; every line that is no JSON object goes to `bad`. */
export async function* readJsonl(path: string, bad: BadLines, maxBytes: number): AsyncGenerator<SourceRecord, void, undefined> {
  for await (const line of readLines(path, maxBytes)) {
    if (line.problem !== undefined) {
      bad.add(line.number, line.problem);
      continue;
    }
    if (line.text.trim() === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(line.text);
    } catch (cause) {
      bad.add(line.number, `invalid JSON (${cause instanceof Error ? cause.message : String(cause)}), expected one JSON object a line`);
      continue;
    }
    if (isRow(value)) yield { line: line.number, row: value };
    else bad.add(line.number, `${Array.isArray(value) ? 'a JSON array' : value === null ? 'null' : `a JSON ${typeof value}`}, expected a JSON object`);
  }
}

function isRow(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
