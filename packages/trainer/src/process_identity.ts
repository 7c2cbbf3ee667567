// Which process this is, so that another one can tell whether it is still running: on this machine by the kernel's word, elsewhere not at all.
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** A process, told apart from every other that had or will have its number. Null: the system does not say. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly host: string;
  /** The boot of that machine. */
  readonly boot: string | null;
  /** The space its number counts in: containers have their own. */
  readonly space: string | null;
  /** Ticks from boot to its start. */
  readonly started: string | null;
}

/** This process. Elsewhere than on Linux number and host alone are known. */
export function thisProcess(): ProcessIdentity {
  return {
    pid: process.pid,
    host: hostname(),
    boot: said(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()),
    space: said(() => readlinkSync('/proc/self/ns/pid')),
    started: startOf('self'),
  };
}

/** Whether `other` runs, as seen from `here`: 'elsewhere' where it is or may be in another machine or container, of which nothing can be known. */
export function fateOf(other: ProcessIdentity, here: ProcessIdentity): 'running' | 'ended' | 'elsewhere' {
  if (other.host !== here.host) return 'elsewhere';
  if (other.boot !== null && here.boot !== null && other.boot !== here.boot) return 'ended';
  if (other.space !== here.space) return 'elsewhere';
  if (other.started !== null) return startOf(other.pid) === other.started ? 'running' : 'ended';
  try {
    process.kill(other.pid, 0);
    return 'running';
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ESRCH' ? 'ended' : 'running';
  }
}

/** Field 22 of its stat; the name before it may hold anything, brackets too. A process that has ended and waits for its parent is none. */
function startOf(pid: number | 'self'): string | null {
  const fields = said(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))?.split(') ').at(-1)?.split(' ');
  return fields === undefined || fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? null);
}

function said(read: () => string): string | null {
  try {
    return read();
  } catch {
    return null;
  }
}
