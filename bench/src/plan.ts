// bench plan: what a plan says of the whole process against the most that the process really held, over models, types and batch shapes.
import { join } from 'node:path';
import type { ExpectedProcess } from '@lomo/trainer';
import type { Report, Reporting } from './manners.ts';
import { benchFolder, deliver, dtypeOf, lastJson, shapeOf, table } from './manners.ts';

export interface PlanOptions extends Reporting {
  readonly models: readonly string[];
  readonly dtypes: readonly string[];
  readonly shapes: readonly string[];
  readonly optims: readonly string[];
  readonly recompute: boolean;
  readonly steps: number;
  readonly threads: number;
}

/** What a process of `bench plan` trains. */
export interface PlanProcessOptions {
  readonly model: string;
  readonly dtype: 'f32' | 'bf16';
  readonly seq: number;
  readonly batch: number;
  readonly optim: string;
  readonly keeps: boolean;
  readonly steps: number;
  readonly threads: number;
}

/** What a process held at one moment, bytes. The parts are resident bytes outside the arena. */
export interface Sight {
  readonly name: string;
  /** VmRSS. */
  readonly resident: number;
  /** VmHWM: the most since the process began. */
  readonly highest: number;
  /** Pages of programs and libraries. */
  readonly files: number;
  /** Machine code that oneDNN and V8 wrote. */
  readonly code: number;
  /** Heaps, V8's and the native side's, and stacks. */
  readonly heaps: number;
  /** What V8's heap has reserved; not all of it is resident. */
  readonly v8: number;
}

/** What it said and what it held, bytes. */
export interface PlanProcessResult {
  /** Of the plan. */
  readonly extent: number;
  /** By the backend. */
  readonly reserved: number;
  /** Said before the arena was reserved. */
  readonly expected: ExpectedProcess;
  /** VmHWM at the end. */
  readonly highest: number;
  readonly sights: readonly Sight[];
  readonly losses: readonly number[];
}

/** One configuration. */
export interface PlanCell extends PlanProcessResult {
  readonly name: string;
}

const mebibyte = 2 ** 20;

/** How far a process may end below what was said, and above it: a share of what it held or bytes, whichever is more. */
export const planBars = { over: { share: 0.03, bytes: 24 * mebibyte }, under: { share: 0.01, bytes: 16 * mebibyte } } as const;

/** Runs the grid, each configuration in a process of its own; returns the exit code. */
export async function plan(options: PlanOptions): Promise<number> {
  const cells: PlanCell[] = [];
  for (const model of options.models) {
    for (const dtype of options.dtypes.map(dtypeOf)) {
      for (const shape of options.shapes) {
        for (const optim of options.optims) {
          const asked: PlanProcessOptions = { model, dtype, ...shapeOf(shape), optim, keeps: !options.recompute, steps: options.steps, threads: options.threads };
          const result = await lastJson<PlanProcessResult>([process.execPath, join(benchFolder, 'dist', 'plan_process.js'), JSON.stringify(asked)]);
          const cell = { name: `${model} ${dtype} ${shape} ${optim}${options.recompute ? ' recomputed' : ''}`, ...result };
          cells.push(cell);
          if (!options.json) process.stderr.write(`${rowOf(cell).join('  ')}\n`);
        }
      }
    }
  }
  return deliver(concluded(cells, options.threads), options);
}

/** Bytes that the expectation is above (below 0: under) the process, and how many it may be. */
export function judged({ expected, highest }: Pick<PlanCell, 'expected' | 'highest'>): { readonly off: number; readonly allowed: number; readonly held: boolean } {
  const off = expected.total - highest;
  const { share, bytes } = off < 0 ? planBars.under : planBars.over;
  const allowed = Math.max(share * highest, bytes);
  return { off, allowed, held: Math.abs(off) <= allowed };
}

const mib = (bytes: number, digits = 1): string => (bytes / mebibyte).toFixed(digits);

function rowOf(cell: PlanCell): string[] {
  const { name, expected, highest } = cell;
  const { off, allowed, held } = judged(cell);
  return [name, mib(expected.start), mib(expected.arena), mib(highest - expected.start - expected.arena), mib(expected.total), mib(highest), `${off < 0 ? '' : '+'}${mib(off)}`, `${((100 * off) / highest).toFixed(1)} %`, mib(allowed), held ? 'held' : 'missed'];
}

const head = ['', 'start', 'arena', 'grew', 'expected', 'VmHWM', 'off', '', 'allowed', ''];

/** What the cells come to; `missed` names every bar that is. */
export function concluded(cells: readonly PlanCell[], threads: number): Report {
  const missed = cells.flatMap((cell) => {
    const { off, allowed, held } = judged(cell);
    const wrong = held ? [] : [`${cell.name}: expected ${mib(cell.expected.total)} MiB, held ${mib(cell.highest)}: ${off < 0 ? 'under' : 'over'} by ${mib(Math.abs(off))}, allowed are ${mib(allowed)}`];
    return cell.reserved === cell.extent ? wrong : [...wrong, `${cell.name}: the plan says ${cell.extent} bytes, the backend has reserved ${cell.reserved}`];
  });
  const worst = cells.map((cell) => ({ cell, ...judged(cell) })).toSorted((a, b) => Math.abs(b.off) / b.allowed - Math.abs(a.off) / a.allowed)[0]!;
  const grew = cells.map(({ expected, highest }) => highest - expected.start - expected.arena);
  return {
    name: 'plan',
    lines: [
      `MiB, ${threads} threads. Expected: resident before the arena is reserved (start), the plan's arena, and ${mib(cells[0]!.expected.growth, 0)} for what training adds; against VmHWM, the most the process ever held`,
      table([head, ...cells.map(rowOf)], [0, 9]),
      '',
      `what a process is made of outside its arena (${worst.cell.name}), MiB`,
      table([['', 'files', 'machine code', 'heaps', 'all', 'V8 reserved'], ...worst.cell.sights.map((s) => [s.name, ...[s.files, s.code, s.heaps, s.files + s.code + s.heaps, s.v8].map((bytes) => mib(bytes))])]),
    ],
    figure: `${cells.length - missed.length} of ${cells.length} within their bars; training added ${mib(Math.min(...grew))} to ${mib(Math.max(...grew))} MiB; furthest off ${worst.cell.name}: ${mib(worst.off)} MiB of ${mib(worst.allowed)} allowed`,
    missed,
    data: { threads, bars: planBars, cells },
  };
}
