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
  return `${(100 * share).toFixed(1).replace(/^-0\.0$/, '0.0')} %`;
}

/** Rows as columns; the first column left, the others right aligned. */
export function table(rows: readonly (readonly string[])[], options: { readonly indent?: number } = {}): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const pad = ' '.repeat(options.indent ?? 2);
  return rows.map((row) => pad + row.map((cell, c) => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!))).join('   ').trimEnd()).join('\n');
}

/** `text` cut at spaces into lines of at most `columns` characters, all but the first indented; as it is where there is no terminal (null). */
export function wrapped(text: string, { columns, indent }: { readonly columns: number | null; readonly indent: number }): string {
  if (columns === null) return text;
  const lines: string[] = [];
  let rest = text;
  // A terminal too narrow for that wraps by itself.
  while (rest.length > columns && columns >= 2 * indent) {
    const at = rest.lastIndexOf(' ', columns);
    if (at <= indent) break;
    lines.push(rest.slice(0, at));
    rest = ' '.repeat(indent) + rest.slice(at + 1);
  }
  return [...lines, rest].join('\n');
}

export interface Screen {
  /** Width of the terminal; null where there is none. */
  readonly columns: number | null;
  /** Prints a line; a live line is kept below it. */
  line(text: string): void;
  /** Shows or replaces the live line: the first of `texts` that the terminal has room for. Where there is none, shows the first, every few seconds. */
  live(...texts: readonly [string, ...string[]]): void;
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
    get columns() {
      return tty ? (stream.columns ?? null) : null;
    },
    line: (text) => {
      if (tty && current !== '') stream.write(`\r\x1b[2K${text}\n${current}`);
      else stream.write(`${text}\n`);
    },
    live: (...texts) => {
      const [text] = texts;
      if (tty) {
        const room = Math.max(20, (stream.columns ?? 120) - 1);
        current = (texts.find(({ length }) => length <= room) ?? texts.at(-1)!).slice(0, room);
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
