// The GPU as the driver's own tool sees it, the commit that is measured, and where a Python has NVIDIA's libraries.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gpuOccupancy } from '@lomo/cuda';
import type { Where } from './where.ts';
import { machineOptions, programFolder } from './where.ts';

/** What results belong to. */
export interface Stamp {
  readonly commit: string;
  /** 'NVIDIA H200', or the double. */
  readonly device: string;
  /** As the driver's tool prints it: '580.159.04'. */
  readonly driver: string;
}

/** What nvidia-smi says of one GPU; memory in bytes. */
export interface Seen {
  readonly name: string;
  readonly driver: string;
  readonly total: number;
  readonly used: number;
  readonly free: number;
}

const fields = ['name', 'driver_version', 'memory.total', 'memory.used', 'memory.free'] as const;
const mebibyte = 2 ** 20;

/** Reads one line of `nvidia-smi --query-gpu=... --format=csv,noheader,nounits`; null where it is something else. */
export function parseSeen(line: string): Seen | null {
  const cells = line.split(',').map((cell) => cell.trim());
  if (cells.length !== fields.length) return null;
  const [name, driver, ...memory] = cells as [string, string, string, string, string];
  const [total, used, free] = memory.map((cell) => Number(cell) * mebibyte) as [number, number, number];
  return [total, used, free].every(Number.isFinite) ? { name, driver, total, used, free } : null;
}

/** Asks nvidia-smi about a GPU; null where it is not there or says nothing. */
export function seenGpu(device: number): Seen | null {
  try {
    const text = execFileSync('nvidia-smi', [`--query-gpu=${fields.join()}`, '--format=csv,noheader,nounits', '-i', String(device)], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], timeout: 20_000 });
    return parseSeen(text.trim().split('\n')[0] ?? '');
  } catch {
    return null;
  }
}

/** Bytes of the whole GPU that are not free, as the driver sees it; by NVML, else by nvidia-smi; NaN where neither tells. */
export function usedBytes(where: Where): number {
  try {
    const { total, free } = gpuOccupancy(machineOptions(where));
    return total - free;
  } catch {
    return 'gpu' in where ? (seenGpu(where.gpu)?.used ?? NaN) : NaN;
  }
}

/** Whether NVML names this process among those that hold memory; null where it does not answer. */
export function seenByNvml(where: Where): boolean | null {
  try {
    return gpuOccupancy(machineOptions(where)).holders.some(({ pid }) => pid === process.pid);
  } catch {
    return null;
  }
}

/** The commit a bundle was made at, else this checkout's; '+' where files differ from it, 'unknown' where nobody can tell. */
export function commitOf(): string {
  const about = join(programFolder, 'about.json');
  if (existsSync(about)) return (JSON.parse(readFileSync(about, 'utf8')) as { commit: string }).commit;
  try {
    const git = (...args: string[]): string => execFileSync('git', args, { cwd: programFolder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    // What a bench writes changes nothing that it measures.
    return `${git('rev-parse', '--short=12', 'HEAD')}${git('status', '--porcelain', '--', ':/', ':(top,exclude)bench/results') === '' ? '' : '+'}`;
  } catch {
    return 'unknown';
  }
}

const askFolders = 'import glob, json, sysconfig; print(json.dumps(sorted(glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib"))))';

/** Folders of NVIDIA's libraries: a system CUDA's, and those that pip installed for `python`. */
export function libraryFolders(python: string | undefined): string[] {
  const system = ['/usr/local/cuda/lib64', '/usr/local/nvidia/lib64'].filter((folder) => existsSync(folder));
  if (python === undefined) return system;
  try {
    return [...system, ...(JSON.parse(execFileSync(python, ['-c', askFolders], { encoding: 'utf8', timeout: 60_000 })) as string[])];
  } catch {
    return system;
  }
}
