// What every bench shares: processes of their own, taken in turn, ratios with their spread, the machine in words.
import { execFile } from 'node:child_process';
import { cpus } from 'node:os';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Runs a program and returns the JSON of its last line. Throws with the program's own words. */
export async function lastJson<T>(command: readonly [string, ...string[]], options: { readonly env?: NodeJS.ProcessEnv } = {}): Promise<T> {
  const [file, ...args] = command;
  const { stdout } = await run(file, args, { env: { ...process.env, ...options.env }, maxBuffer: 2 ** 26 }).catch((error: Error & { stderr?: string }) => {
    throw new Error(`${command.join(' ')}\n${(error.stderr ?? error.message).split('\n').slice(-12).join('\n')}`);
  });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as T;
}

/** Least, middle and largest of `values`. */
export function spread(values: readonly number[]): { readonly min: number; readonly median: number; readonly max: number } {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const median = ((sorted[Math.floor(middle)] ?? NaN) + (sorted[Math.ceil(middle)] ?? NaN)) / 2;
  return { min: sorted[0] ?? NaN, median, max: sorted.at(-1) ?? NaN };
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** Rows as aligned columns; the first column left, the others right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((row) => (row[c] ?? '').length)));
  return rows.map((row) => row.map((cell, c) => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!))).join('  ')).join('\n');
}

/** The machine in words, for results that are kept. */
export function machine(): string {
  return `${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${cpus().length} logical cores, node ${process.version}`;
}
