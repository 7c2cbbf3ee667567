// What a person sees: numbers with units, small tables, one live line that stays in place on a terminal.

export { bytes } from '@lomo/trainer';

/** Seconds as '48 s', '3 min 20 s' or '2 h 05 min'. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '-';
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, '0')} s`;
  return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')} min`;
}

/** '260,032' */
export function count(n: number): string {
  return Math.round(n).toLocaleString('en-US');
}

/** '99.5 %' */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** Rows as columns; the first column left, the others right aligned. */
export function table(rows: readonly (readonly string[])[], options: { readonly indent?: number } = {}): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const pad = ' '.repeat(options.indent ?? 2);
  return rows.map((row) => pad + row.map((cell, c) => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!))).join('   ').trimEnd()).join('\n');
}

export interface Screen {
  /** Prints a line; a live line is kept below it. */
  line(text: string): void;
  /** Shows or replaces the live line. Where there is no terminal, shows one every few seconds. */
  live(text: string): void;
  /** Ends the live line. */
  settle(): void;
}

/** Milliseconds between live lines where nobody can erase one. */
const sparse = 5000;

/** A screen on `stream`. */
export function screen(stream: NodeJS.WriteStream = process.stdout): Screen {
  let current = '';
  let shown = -Infinity;
  const tty = stream.isTTY === true;
  return {
    line: (text) => {
      if (tty && current !== '') stream.write(`\r\x1b[2K${text}\n${current}`);
      else stream.write(`${text}\n`);
    },
    live: (text) => {
      if (tty) {
        current = text.slice(0, Math.max(20, (stream.columns ?? 120) - 1));
        stream.write(`\r\x1b[2K${current}`);
      } else if (performance.now() - shown >= sparse) {
        shown = performance.now();
        stream.write(`${text}\n`);
        current = '';
      } else current = text;
    },
    settle: () => {
      if (tty && current !== '') stream.write('\n');
      else if (current !== '') stream.write(`${current}\n`);
      current = '';
      shown = -Infinity;
    },
  };
}
