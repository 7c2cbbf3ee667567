// lomo doctor: what this machine has, what it measures, what is missing and what brings it.
import { cpus, totalmem } from 'node:os';
import { isLomoError } from '@lomo/tensor';
import { freeMemory, openBackend } from '../backends.ts';
import { bytes, screen as openScreen } from '../screen.ts';
import type { GpuReport, Missing } from './doctor_gpu.ts';
import { examineGpu, gpuWords } from './doctor_gpu.ts';
import type { Rate } from './doctor_rates.ts';
import { productRate } from './doctor_rates.ts';

/** Side of the processor's products. */
const side = 1024;

export interface DoctorFlags {
  readonly threads?: number;
  /** Which GPU is looked at; the first unless given. */
  readonly gpu?: number;
  /** Which backend must run for the exit code to be 0. */
  readonly backend: 'cpu' | 'cuda';
  readonly json?: boolean;
}

/** What a machine has. */
export interface DoctorReport {
  readonly node: string;
  readonly processor: string;
  /** Bytes; `limit` where a cgroup sets one. */
  readonly memory: { readonly free: number; readonly total: number; readonly limit: number | null };
  readonly cpu: { readonly description: string; readonly products: Rate } | Missing;
  readonly gpu: GpuReport;
}

/** Prints facts and measured rates; exits 1 where training on the backend that is asked for would not run. */
export async function doctor(flags: DoctorFlags): Promise<void> {
  const screen = openScreen();
  const report = await reportOf(flags);
  const { node, processor, memory, cpu, gpu } = report;
  const runs = flags.backend === 'cuda' ? gpu.usable : !('code' in cpu);
  if (!runs) process.exitCode = 1;
  if (flags.json === true) {
    screen.line(JSON.stringify(report, null, 2));
    return;
  }
  const { rows: gpuRows, notes } = gpuWords(gpu);
  const rows: (readonly [string, string])[] = [
    ['node', node],
    ['processor', processor],
    ['memory', `${bytes(memory.free)} free of ${bytes(memory.total)}${memory.limit === null ? '' : ` (limited to ${bytes(memory.limit)})`}`],
    ...('code' in cpu ? [] : [['backend', cpu.description] as const, ['f32 products', `${(cpu.products.perSecond / 1e9).toFixed(0)} GFLOP/s (${side} x ${side} x ${side})`] as const]),
  ];
  screen.line(facts(rows));
  if ('code' in cpu) screen.line(`\n  missing: ${cpu.message}`);
  screen.line('');
  if (gpuRows.length > 0) screen.line(facts(gpuRows));
  for (const note of notes) screen.line(`${gpuRows.length > 0 ? '\n' : ''}  ${note}`);
  if (!('code' in cpu)) screen.line(`\n  all there: \`lomo quickstart\` runs${gpu.usable ? '; a run with --backend cuda trains on the GPU' : ''}`);
}

/** Names left, what is known of them beside, at one edge. */
function facts(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length), 'f32 products'.length);
  return rows.map(([name, value]) => `  ${name.padEnd(width)}   ${value}`).join('\n');
}

async function reportOf({ threads, gpu = 0 }: DoctorFlags): Promise<DoctorReport> {
  const limit = process.constrainedMemory();
  const machine = {
    node: process.version,
    processor: `${cpus()[0]?.model.trim() ?? 'unknown'}, ${cpus().length} logical cores`,
    memory: { free: process.availableMemory(), total: totalmem(), limit: limit > 0 && limit < totalmem() ? limit : null },
  };
  return { ...machine, cpu: await examineCpu(threads), gpu: await examineGpu(process.env, gpu) };
}

async function examineCpu(threads: number | undefined): Promise<DoctorReport['cpu']> {
  try {
    const { backend, description } = await openBackend('cpu', { threads });
    await using opened = backend;
    return { description, products: await productRate(opened, 'f32', { from: side, to: side, room: freeMemory() }) };
  } catch (error) {
    if (!isLomoError(error)) throw error;
    return { code: error.code, message: error.message };
  }
}
