// Rows for people: one line each as they come, and one summary line at the end.
import type { Row } from './row.ts';

const words = { held: 'ok', missed: 'MISS', skipped: 'skip' } as const;

/** One row as a line. */
export function lineOf(row: Row): string {
  const numbers = row.error === null || row.bar === null ? '' : `${shown(row.error).padStart(8)} of ${shown(row.bar).padEnd(8)} ${row.measure ?? ''}`;
  return `${words[row.status].padEnd(5)}${row.name.padEnd(62)} ${numbers.padEnd(30)} ${oneLine(row.note)}`.trimEnd();
}

/** Counts of rows, and the row nearest to its bar. */
export interface Summary {
  readonly held: number;
  readonly missed: number;
  readonly skipped: number;
  /** Held row with the largest share of its bar; null when none has a bar above 0. */
  readonly nearest: { readonly name: string; readonly share: number } | null;
}

/** The summary of `rows`. */
export function summarise(rows: readonly Row[]): Summary {
  const count = (status: Row['status']): number => rows.filter((row) => row.status === status).length;
  let nearest: Summary['nearest'] = null;
  for (const { name, status, error, bar } of rows) {
    if (status !== 'held' || error === null || bar === null || bar === 0) continue;
    if (nearest === null || error / bar > nearest.share) nearest = { name, share: error / bar };
  }
  return { held: count('held'), missed: count('missed'), skipped: count('skipped'), nearest };
}

/** The last line of a run. */
export function summaryLine(summary: Summary, about: { readonly backend: string; readonly seconds: number }): string {
  const { held, missed, skipped, nearest } = summary;
  const near = nearest === null ? '' : `; nearest to its bar: ${nearest.name} at ${Math.round(nearest.share * 100)} %`;
  return `golden on ${about.backend}: ${held} held, ${missed} missed, ${skipped} skipped in ${about.seconds.toFixed(0)} s${near}`;
}

function shown(x: number): string {
  return x === 0 || (Number.isInteger(x) && x < 1e6) ? String(x) : x.toExponential(1);
}

function oneLine(text: string): string {
  const line = text.replaceAll(/\s*\n\s*/g, ' ');
  return line.length > 300 ? `${line.slice(0, 297)}...` : line;
}
