// Results of the benches as the tables of docs/performance.md. Pure: JSON in, Markdown out.
import { percent } from './manners.ts';
import type { MemoryCell } from './memory.ts';
import type { Line, ProfileData } from './profile.ts';

/** What every result file holds. */
export interface Kept {
  readonly name: string;
  readonly date: string;
  readonly machine: string;
  readonly figure: string;
  readonly missed: readonly string[];
}

/** `pnpm bench ops --save`. */
export interface KeptOps extends Kept {
  readonly sets: readonly { readonly model: string; readonly dtype: string; readonly shape: string; readonly kernels: readonly { readonly op: string; readonly shapes: string; readonly share: number; readonly bound: string }[] }[];
}

/** `pnpm bench profile --save`. */
export interface KeptProfile extends Kept {
  readonly threads: number;
  readonly profiles: readonly ProfileData[];
}

/** `pnpm bench memory --save`. */
export interface KeptMemory extends Kept {
  readonly torch: string;
  readonly cells: readonly MemoryCell[];
  readonly comparisons: readonly { readonly name: string; readonly what: string; readonly share: number; readonly bar: number; readonly of: string; readonly against: string }[];
}

/** The newest results there are, by bench. */
export interface Results {
  readonly profile?: KeptProfile;
  readonly ops?: KeptOps;
  /** Of each grid that was kept under a name of its own. */
  readonly memory: readonly KeptMemory[];
  /** Those of which only the last line is told. */
  readonly figures: readonly Kept[];
}

/** Between these lines a section is written anew. */
export const marks = { begin: '<!-- written by `pnpm bench performance`: begin -->', end: '<!-- written by `pnpm bench performance`: end -->' } as const;

/** `text` with what lies between the marks replaced. Throws where a mark is missing. */
export function withSection(text: string, section: string): string {
  const [from, to] = [text.indexOf(marks.begin), text.indexOf(marks.end)];
  if (from < 0 || to < from) throw new Error(`the document has no section between '${marks.begin}' and '${marks.end}'`);
  return `${text.slice(0, from + marks.begin.length)}\n\n${section}\n\n${text.slice(to)}`;
}

/** The section: what is there of the results, and how to make what is not. */
export function performanceSection({ profile, ops, memory, figures }: Results): string {
  const absent = (verb: string): string => `No results yet: \`pnpm bench ${verb}\`.`;
  return [
    '### A step, op by op',
    ...(profile === undefined ? [absent('performance')] : profile.profiles.map((data) => profileTable(data, { profile, ops }))),
    '### Memory of the whole process',
    ...(memory.length === 0 ? [absent('memory --python PATH --save')] : memory.map(memoryTables)),
    '### The other benches',
    figures.length === 0 ? absent('train --python PATH --save') : table([['bench', 'when', 'what it comes to'], ...figures.map((f) => [`\`${f.name}\``, day(f), f.figure])]),
  ].join('\n\n');
}

function profileTable(data: ProfileData, { profile, ops }: { readonly profile: KeptProfile; readonly ops: KeptOps | undefined }): string {
  const { name, step, sum, between, limits, byOp } = data;
  const alone = sharesAlone(ops, name);
  const rows = byOp.map((line) => {
    const shares = alone.get(line.name);
    const [worst, best] = shares === undefined ? [] : [Math.min(...shares), Math.max(...shares)];
    const spread = worst === undefined || best === undefined ? '' : worst === best ? percent(worst) : `${percent(worst)} to ${percent(best)}`;
    return [`\`${line.name}\``, String(line.launches), line.milliseconds.toFixed(1), percent(line.milliseconds / sum), boundOf(line, limits), percent(line.least / line.milliseconds), spread];
  });
  const least = byOp.reduce((total, line) => total + line.least, 0);
  const all = ['all', String(byOp.reduce((n, line) => n + line.launches, 0)), sum.toFixed(1), '100 %', '', percent(least / sum), ''];
  return [
    `**${name}**, ${profile.threads} threads, ${profile.machine}, ${day(profile)}. A step takes ${step.toFixed(0)} ms; its launches take ${sum.toFixed(0)} ms, ${between.toFixed(1)} ms pass between them. Limits of this run: ${(limits.flops / 1e6).toFixed(0)} GFLOP/s, ${(limits.bytes / 1e6).toFixed(1)} GB/s.`,
    table([['op', 'launches', 'ms', 'share of the step', 'limited by', 'share of its limit in the step', 'alone, by shape'], ...rows, all]),
  ].join('\n\n');
}

/** Shares of limit of every kernel alone, by op, of the set that belongs to a profile: '110m f32 256x4 lomo' is that of 110m f32 256x4. */
function sharesAlone(ops: KeptOps | undefined, name: string): ReadonlyMap<string, readonly number[]> {
  const found = new Map<string, number[]>();
  const set = ops?.sets.find(({ model, dtype, shape }) => name.startsWith(`${model} ${dtype} ${shape} `));
  for (const { op, share } of set?.kernels ?? []) found.set(op, [...(found.get(op) ?? []), share]);
  return found;
}

function boundOf({ flops, bytes }: Line, limits: ProfileData['limits']): string {
  return flops / limits.flops > bytes / limits.bytes ? 'products' : 'memory';
}

function memoryTables(memory: KeptMemory): string {
  const mebibytes = (n: number): string => n.toFixed(0);
  const rows = memory.cells.flatMap((cell) => [...cell.ours, ...cell.tuned, ...cell.stock].map((m) => [cell.name, m.side, mebibytes(m.whole), mebibytes(m.above), mebibytes(m.weights), mebibytes(m.start)]));
  const bars = memory.comparisons.map((c) => [c.name, c.what, c.share.toFixed(3), String(c.bar), c.share <= c.bar ? 'held' : '**missed**', c.of]);
  return [
    `${memory.machine}, torch ${memory.torch}, ${day(memory)}. MiB. *Whole*: the most the process ever held, from its start. *Above*: the most it held in training, less weights and what it held before it had a model (*start*).`,
    table([['', 'side', 'whole', 'above', 'weights', 'start'], ...rows]),
    table([['', 'comparison', 'share', 'bar', '', 'our side'], ...bars]),
  ].join('\n\n');
}

function day({ date }: Kept): string {
  return date.slice(0, 10);
}

/** Rows as a Markdown table; columns of numbers to the right. */
function table([head = [], ...rows]: readonly (readonly string[])[]): string {
  const numeric = head.map((_, c) => rows.length > 0 && rows.every((row) => row[c] === '' || /^\d[\d.]*( %( to \d+ %)?)?$/.test(row[c] ?? '')));
  const line = (cells: readonly string[]): string => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(numeric.map((right) => (right ? '--:' : '---'))), ...rows.map(line)].join('\n');
}
