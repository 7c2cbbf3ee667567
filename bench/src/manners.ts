// What every bench shares: processes of their own taken in turn, ratios with their spread, tables, bars, results that are kept.
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);
/** bench/, from src/ as from dist/. */
export const benchFolder = dirname(dirname(fileURLToPath(import.meta.url)));

/** How a bench hands over what it found. */
export interface Reporting {
  readonly json: boolean;
  readonly save: boolean;
  readonly check: boolean;
}

/** What a bench found. */
export interface Report {
  readonly name: string;
  /** Lines for a person, tables included. */
  readonly lines: readonly string[];
  /** The last line: what the bench comes down to. */
  readonly figure: string;
  /** Bars missed, each in a sentence. */
  readonly missed: readonly string[];
  readonly data: Readonly<Record<string, unknown>>;
}

/** Prints a report (one line of JSON with `json`), keeps it with `save`, and returns the exit code: 1 where `check` found a bar missed. */
export function deliver(report: Report, { json, save, check }: Reporting): number {
  const { lines, figure, missed } = report;
  const result = save ? keep(report) : resultOf(report);
  if (json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else process.stdout.write(`${[machine(), ...lines, ...missed.map((line) => `missed: ${line}`), figure].join('\n')}\n`);
  return check && missed.length > 0 ? 1 : 0;
}

/** Writes a report to results/, over one of the same name and day; returns what was written. */
export function keep(report: Report): ReturnType<typeof resultOf> {
  const result = resultOf(report);
  const folder = join(benchFolder, 'results');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${result.date.slice(0, 10)}-${result.name}.json`), `${JSON.stringify(result, null, 1)}\n`);
  return result;
}

function resultOf({ name, figure, missed, data }: Report) {
  return { name, date: new Date().toISOString(), machine: machine(), figure, missed, ...data };
}

/** Runs a program and returns the JSON of its last line. Throws with the program's own last words. */
export async function lastJson<T>(command: readonly [string, ...string[]], env: NodeJS.ProcessEnv = process.env): Promise<T> {
  const [file, ...args] = command;
  const { stdout } = await execute(file, args, { env, maxBuffer: 2 ** 26 }).catch((error: Error & { stderr?: string }) => {
    throw new Error(`${command.join(' ')}\n${(error.stderr || error.message).trim().split('\n').slice(-12).join('\n')}`);
  });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as T;
}

/** Runs every side once a round, one after the other: what the machine does meanwhile meets all of them alike. Results by side. */
export async function inTurn<T extends Readonly<Record<string, () => Promise<unknown>>>>(rounds: number, sides: T): Promise<{ [K in keyof T]: Awaited<ReturnType<T[K]>>[] }> {
  const found = Object.fromEntries(Object.keys(sides).map((side) => [side, [] as unknown[]]));
  for (let round = 0; round < rounds; round++) for (const [side, run] of Object.entries(sides)) found[side]!.push(await run());
  return found as { [K in keyof T]: Awaited<ReturnType<T[K]>>[] };
}

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** Least, middle and largest of `values`; NaN where there are none. */
export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return { min: sorted[0] ?? NaN, median: ((sorted[Math.floor(middle)] ?? NaN) + (sorted[Math.ceil(middle)] ?? NaN)) / 2, max: sorted.at(-1) ?? NaN };
}

/** The spread of ours over theirs, round by round: each pair met the same machine. */
export function ratios(ours: readonly number[], theirs: readonly number[]): Spread {
  return spread(ours.map((value, round) => value / theirs[round]!));
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** Rows as aligned columns: those named in `left` to the left (the first, unless said otherwise), the others to the right. */
export function table(rows: readonly (readonly string[])[], left: readonly number[] = [0]): string {
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((row) => (row[c] ?? '').length)));
  return rows.map((row) => row.map((cell, c) => (left.includes(c) ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!))).join('  ').trimEnd()).join('\n');
}

/** A share as a percentage. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

/** '256x4' as [256, 4]. Throws where it is something else. */
export function shapeOf(text: string): { readonly seq: number; readonly batch: number } {
  const [seq = 0, batch = 0] = text.split('x').map(Number);
  if (!Number.isInteger(seq) || !Number.isInteger(batch) || seq < 1 || batch < 1) throw new Error(`shape '${text}': expected tokens x rows, such as 256x4`);
  return { seq, batch };
}

/** A dtype of the benches. Throws on another. */
export function dtypeOf(text: string): 'f32' | 'bf16' {
  if (text === 'f32' || text === 'bf16') return text;
  throw new Error(`dtype '${text}': expected f32 or bf16`);
}

/** The machine in words. */
export function machine(): string {
  return `${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${cpus().length} logical cores, node ${process.version}`;
}
