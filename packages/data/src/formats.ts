// Row formats: which keys hold the prompt, the completion or the text. Detected from the keys of a row, and reported.
import { DataError } from './errors.ts';

/** Which key of a row holds what: prompt and completion (and an optional further input, put after the prompt), or text. */
export interface Columns {
  readonly prompt?: string;
  readonly completion?: string;
  /** Optional: appended to the prompt after a blank line, where present and not empty. */
  readonly input?: string;
  readonly text?: string;
}

/** A recognised format: its name and the keys it reads. */
export interface Format {
  readonly name: string;
  readonly columns: Columns;
}

/** What a row says, before any template. `segments` carry their own mask. */
export type Example =
  | { readonly kind: 'pair'; readonly prompt: string; readonly completion: string; readonly row: Readonly<Record<string, unknown>> }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'segments'; readonly segments: readonly { readonly text: string; readonly trained: boolean }[] };

const known: readonly (Format & { readonly keys: readonly string[] })[] = [
  { name: 'prompt_completion', keys: ['prompt', 'completion'], columns: { prompt: 'prompt', completion: 'completion' } },
  { name: 'alpaca', keys: ['instruction', 'output'], columns: { prompt: 'instruction', input: 'input', completion: 'output' } },
  { name: 'question_answer', keys: ['question', 'answer'], columns: { prompt: 'question', completion: 'answer' } },
  { name: 'segments', keys: ['segments'], columns: {} },
  { name: 'text', keys: ['text'], columns: { text: 'text' } },
];

/** The format of a row, from `columns` where given, else from its keys. Throws DataError UnknownFormat (naming the keys found) or BadOption. `place` is `path:line`. */
export function detectFormat(row: Readonly<Record<string, unknown>>, columns: Columns | undefined, place: string): Format {
  const found = Object.keys(row);
  const listed = found.length === 0 ? 'none' : found.slice(0, 20).join(', ');
  if (columns !== undefined) {
    const pair = columns.prompt !== undefined && columns.completion !== undefined;
    if (pair === (columns.text !== undefined)) {
      throw new DataError('BadOption', `${place}: columns names ${Object.keys(columns).join(', ') || 'nothing'}, expected prompt and completion, or text`);
    }
    const wanted = pair ? [columns.prompt, columns.completion] : [columns.text];
    const absent = wanted.filter((key) => key !== undefined && !Object.hasOwn(row, key));
    if (absent.length > 0) {
      throw new DataError('UnknownFormat', `${place}: the row has no '${absent.join("', '")}' (columns asks for it); keys found: ${listed}`, { found });
    }
    return { name: 'columns', columns };
  }
  const match = known.find((format) => format.keys.every((key) => Object.hasOwn(row, key)));
  if (match !== undefined) return { name: match.name, columns: match.columns };
  const chat = found.includes('messages') || found.includes('conversations');
  const expected = known.map((format) => format.keys.join(' + ')).join(', ');
  throw new DataError('UnknownFormat',
    `${place}: no known format has these keys: ${listed}. Expected ${expected}; or name the keys with columns: { prompt: '...', completion: '...' }${chat ? '. Chat conversations are not read here: render them to prompt and completion first' : ''}`, { found });
}

/** The example in a row, or a string saying what is wrong with it and what is expected. */
export function readExample(row: Readonly<Record<string, unknown>>, format: Format): Example | string {
  if (format.name === 'segments') return readSegments(row);
  const { prompt, completion, input, text } = format.columns;
  if (text !== undefined) {
    const value = readString(row, text);
    return 'problem' in value ? value.problem : { kind: 'text', text: value.text };
  }
  const asked = readString(row, prompt ?? 'prompt');
  if ('problem' in asked) return asked.problem;
  const answered = readString(row, completion ?? 'completion');
  if ('problem' in answered) return answered.problem;
  let further = '';
  if (input !== undefined && Object.hasOwn(row, input)) {
    const value = row[input];
    if (typeof value !== 'string') return `'${input}' is ${kindOf(value)}, expected a string`;
    further = value;
  }
  return { kind: 'pair', prompt: further === '' ? asked.text : `${asked.text}\n\n${further}`, completion: answered.text, row };
}

function readString(row: Readonly<Record<string, unknown>>, key: string): { readonly text: string } | { readonly problem: string } {
  if (!Object.hasOwn(row, key)) return { problem: `the row has no '${key}', expected it as in the rows before; keys found: ${Object.keys(row).slice(0, 20).join(', ') || 'none'}` };
  const value = row[key];
  if (typeof value !== 'string') return { problem: `'${key}' is ${kindOf(value)}, expected a string` };
  return value === '' ? { problem: `'${key}' is empty, expected text` } : { text: value };
}

function readSegments(row: Readonly<Record<string, unknown>>): Example | string {
  const value = row['segments'];
  if (!Array.isArray(value) || value.length === 0) return `'segments' is ${kindOf(value)}, expected a list of { "text": string, "train": boolean }`;
  const segments: { text: string; trained: boolean }[] = [];
  for (const [i, part] of value.entries()) {
    const { text, train } = typeof part === 'object' && part !== null ? (part as { text?: unknown; train?: unknown }) : {};
    if (typeof text !== 'string' || typeof train !== 'boolean') return `segments[${i}] is not { "text": string, "train": boolean }`;
    segments.push({ text, trained: train });
  }
  return { kind: 'segments', segments };
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return Array.isArray(value) ? (value.length === 0 ? 'an empty list' : 'a list') : `a${typeof value === 'object' ? 'n' : ''} ${typeof value}`;
}
