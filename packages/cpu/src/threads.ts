// How many threads pay off here: physical cores this process may run on, capped by the control group's quota.
import { availableParallelism } from 'node:os';
import { readFileSync } from 'node:fs';

/** A file's text, or null where it cannot be read. */
export type ReadText = (path: string) => string | null;

/** The numbers of a kernel list such as '0-3,8'. */
export function parseCpuList(text: string): readonly number[] {
  const out: number[] = [];
  for (const part of text.trim().split(',')) {
    const [first, last] = part.split('-').map(Number);
    if (part === '' || first === undefined || !Number.isInteger(first)) continue;
    for (let i = first; i <= (last ?? first); i++) out.push(i);
  }
  return out;
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null; // not this kind of system
  }
}

function quota(read: ReadText): number {
  const v2 = read('/sys/fs/cgroup/cpu.max')?.trim().split(' ');
  if (v2 !== undefined && v2[0] !== 'max') return Number(v2[0]) / Number(v2[1]);
  const whole = Number(read('/sys/fs/cgroup/cpu/cpu.cfs_quota_us') ?? -1);
  const period = Number(read('/sys/fs/cgroup/cpu/cpu.cfs_period_us') ?? 0);
  return whole > 0 && period > 0 ? whole / period : Infinity;
}

/**
 * Physical cores available to this process: distinct (package, core) pairs of its affinity mask, at most the control group's CPU
 * quota rounded up, at least 1. `read` is for tests.
 */
export function availableCores(read: ReadText = readText): number {
  const allowed = parseCpuList(/^Cpus_allowed_list:\s*(.*)$/m.exec(read('/proc/self/status') ?? '')?.[1] ?? '');
  if (allowed.length === 0) return availableParallelism();
  const cores = new Set(
    allowed.map((cpu) => {
      const topology = `/sys/devices/system/cpu/cpu${cpu}/topology`;
      const core = read(`${topology}/core_id`);
      return core === null ? `cpu ${cpu}` : `${read(`${topology}/physical_package_id`)?.trim()} ${core.trim()}`;
    }),
  );
  return Math.max(1, Math.min(cores.size, Math.ceil(quota(read))));
}
