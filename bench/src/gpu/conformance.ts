// gpu conformance: every op and the golden folder on the device, next to the host double; memory and races by NVIDIA's own checker.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Row } from '../../../tools/golden/src/row.ts';
import { percent, table } from '../manners.ts';
import type { OpVerdict } from './conform.ts';
import type { Conclusion, Entry } from './findings.ts';
import { newestResult } from './findings.ts';
import type { Context, Part } from './part.ts';
import { measureList, passed, processFile } from './part.ts';
import type { Job } from './process.ts';
import { runLines } from './runner.ts';

const deviceId = 'every op on the device';
const doubleId = 'every op on the double';
const goldenId = 'golden on the device';
const checkers = ['memcheck', 'racecheck'] as const;

/** A row as it travels: infinities are words in JSON. */
export type TravelledRow = Omit<Row, 'error' | 'bar'> & { readonly error: string | null; readonly bar: string | null };

/** What compute-sanitizer said of the kernel tests. */
export interface Checked {
  readonly errors: number;
  readonly ops: number;
  /** The first of its findings. */
  readonly words: string;
}

async function run(context: Context): Promise<void> {
  const { where, double, scale, shared } = context;
  const job = (place: Context['where'], cases: number): Job => ({ kind: 'conformance', where: place, cases, ...(scale.ops === undefined ? {} : { ops: scale.ops }) });
  // The double needs a core and no GPU: it runs beside.
  await Promise.all([
    measureList(context, { id: deviceId, job: job(where, scale.cases), expects: 60 }),
    double === null ? Promise.resolve() : measureList(context, { id: doubleId, job: job(double, scale.cases), expects: 60 }),
  ]);
  if (shared !== undefined) await measureList(context, { id: goldenId, job: { kind: 'golden', where, shared, steps: scale.tiny ? 1 : 100 }, expects: 60 });
  if ('double' in where) return;
  for (const checker of checkers) await check(context, checker, job(where, 1));
}

/** The kernel tests, one case each, under one of compute-sanitizer's tools. */
async function check(context: Context, checker: (typeof checkers)[number], job: Job): Promise<void> {
  const { findings, budget } = context;
  const program = sanitizer();
  if (program === null) {
    if (!findings.has(checker)) findings.put(checker, { failed: 'compute-sanitizer is not there' }, 0);
    return context.keep();
  }
  if (passed(context, { id: checker, expects: 60 })) return;
  const work = mkdtempSync(join(tmpdir(), 'lomo-gpu-'));
  try {
    const log = join(work, 'log');
    let ops = 0;
    // It starts the program as a child of its own, which must not outlive it.
    const seconds = Math.floor(budget.left);
    const ran = await runLines(['timeout', '-s', 'KILL', String(seconds), program, '--tool', checker, '--log-file', log, '--print-limit', '20', process.execPath, processFile(), JSON.stringify(job)], { seconds: seconds + 5, heard: () => void ops++ });
    const text = existsSync(log) ? readFileSync(log, 'utf8') : '';
    const errors = errorsOf(text);
    const data: Checked = { errors: errors ?? 0, ops, words: text.split('\n').slice(0, 40).join('\n') };
    findings.put(checker, errors === null || ran.how !== 'done' ? { ...(ops > 0 ? { data } : {}), failed: `${ran.how}: ${errors === null ? (text.trim().split('\n').at(-1) ?? '') : ''} ${ran.words}`.trim() } : { data }, ran.seconds);
    context.say(`${checker}: ${ran.how}, ${ops} ops, ${errors ?? 'no'} errors counted, ${ran.seconds.toFixed(1)} s`);
    context.keep();
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Errors that a log of compute-sanitizer sums up; null where it came to no end. */
export function errorsOf(log: string): number | null {
  const sums = [...log.matchAll(/(?:ERROR|RACECHECK) SUMMARY: (\d+)/g)];
  return sums.length === 0 ? null : sums.reduce((sum, match) => sum + Number(match[1]), 0);
}

function sanitizer(): string | null {
  const places = ['compute-sanitizer', '/usr/local/cuda/bin/compute-sanitizer', '/usr/local/cuda/compute-sanitizer/compute-sanitizer'];
  return (
    places.find((place) => {
      try {
        execFileSync(place, ['--version'], { stdio: 'ignore', timeout: 20_000 });
        return true;
      } catch {
        return false;
      }
    }) ?? null
  );
}

/** An op whose results on the device are other bits than the double's. */
export interface OpDifference {
  readonly op: string;
  readonly dtype: string;
  /** Worst error over what is allowed. */
  readonly device: number;
  readonly double: number;
}

/** Ops that were compared, and those whose bits differ. */
export function differences(device: readonly OpVerdict[], double: readonly OpVerdict[]): { readonly compared: number; readonly differ: readonly OpDifference[] } {
  const others = new Map(double.map((verdict) => [`${verdict.op} ${verdict.dtype}`, verdict]));
  const pairs = device.flatMap((verdict) => {
    const other = others.get(`${verdict.op} ${verdict.dtype}`);
    return other === undefined || other.cases !== verdict.cases ? [] : [{ verdict, other }];
  });
  const differ = pairs.filter(({ verdict, other }) => verdict.digest !== other.digest).map(({ verdict, other }) => ({ op: verdict.op, dtype: verdict.dtype, device: verdict.share, double: other.share }));
  return { compared: pairs.length, differ };
}

/** Golden rows whose verdict is another than the double's, or whose error is more than twice, or less than half of it. */
export function rowDifferences(device: readonly TravelledRow[], double: readonly TravelledRow[]): readonly Readonly<Record<'row' | 'device' | 'double', string>>[] {
  const others = new Map(double.map((row) => [row.name, row]));
  const told = ({ status, error, bar }: TravelledRow): string => `${status}${error === null ? '' : `, ${error} of ${String(bar)}`}`;
  return device.flatMap((row) => {
    const other = others.get(row.name);
    if (other === undefined) return [];
    const [a, b] = [Number(row.error), Number(other.error)];
    const apart = row.status !== other.status || (a !== b && Math.max(a, b) > 2 * Math.min(a, b));
    return apart ? [{ row: row.name, device: told(row), double: told(other) }] : [];
  });
}

/** What the findings come to. */
export function concludeConformance(findings: Parameters<Part['conclude']>[0], context: Pick<Context, 'former'>): Conclusion {
  const [held, missed, open]: [string[], string[], string[]] = [[], [], []];
  const [device, double, golden] = [findings.get<readonly OpVerdict[]>(deviceId), findings.get<readonly OpVerdict[]>(doubleId), findings.get<readonly TravelledRow[]>(goldenId)];
  const unfinished = [deviceId, goldenId].filter((id) => !findings.has(id)).map((id) => `${id}: ${findings.failure(id) ?? 'not measured'}`);
  open.push(...unfinished);
  const failed = (device ?? []).filter((verdict) => verdict.failures.length > 0);
  if (device !== undefined) (failed.length === 0 ? held : missed).push(`conformance: ${device.length - failed.length} of ${device.length} ops and dtypes within their bars, ${device.reduce((sum, verdict) => sum + verdict.cases, 0)} cases`);
  const skipped = (device ?? []).flatMap((verdict) => verdict.skipped);
  if (golden !== undefined) {
    const rows = golden.filter(({ status }) => status === 'missed');
    (rows.length === 0 ? held : missed).push(`golden: ${golden.filter(({ status }) => status === 'held').length} rows held, ${rows.length} missed${rows.length === 0 ? '' : `: ${rows.map(({ name }) => name).join(', ')}`}`);
  }
  for (const checker of checkers) {
    const checked = findings.get<Checked>(checker);
    if (!findings.has(checker)) open.push(`${checker}: ${findings.failure(checker) ?? 'not run; the double runs under the address and undefined-behaviour sanitizers instead'}${checked === undefined ? '' : ` (after ${checked.ops} ops)`}`);
    else (checked!.errors === 0 ? held : missed).push(`${checker}: ${checked!.errors} errors in ${checked!.ops} ops and dtypes`);
  }
  const { compared, differ } = differences(device ?? [], double ?? []);
  const doubleGolden = context.former.map((folder) => (newestResult(folder, 'gpu-conformance-double')?.['entries'] as Readonly<Record<string, Entry>> | undefined)?.[goldenId]?.data as readonly TravelledRow[] | undefined).find((rows) => rows !== undefined);
  const rows = rowDifferences(golden ?? [], doubleGolden ?? []);
  if (device !== undefined && double === undefined) open.push('differences from the double: it did not run beside');
  return {
    lines: [
      ...failed.map((verdict) => `FAILED ${verdict.op} ${verdict.dtype}: ${verdict.failures[0]!}`),
      ...skipped,
      `${compared} ops and dtypes beside the double: ${compared - differ.length} to equal bits, ${differ.length} differ; golden: ${doubleGolden === undefined ? "the double's rows are not there" : `${rows.length} rows differ`}`,
      ...(differ.length === 0 ? [] : [table([['op', 'dtype', 'error of bar: device', 'double'], ...differ.map((one) => [one.op, one.dtype, percent(one.device), percent(one.double)])], [0, 1])]),
      ...rows.map((row) => `${row.row}: ${row.device}; double ${row.double}`),
    ],
    figure: `${held.length} held, ${missed.length} missed, ${open.length} open`,
    held,
    missed,
    open,
    data: { differs_from_double: { ops: differ, golden: rows, compared } },
  };
}

export const conformancePart: Part = { name: 'conformance', run, conclude: concludeConformance };
