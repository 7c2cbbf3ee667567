// What a plan is held against: this machine, or memory that somebody names.
import { LomoError } from '@lomo/tensor';
import { freeMemory } from '../backends.ts';
import { bytes } from '../screen.ts';

/** Memory a run may take. */
export interface PlanDevice {
  readonly bytes: number;
  /** '24 GiB', or 'what is free, 12.3 GiB'. */
  readonly words: string;
  /** True where somebody named it. */
  readonly named: boolean;
}

const units: Readonly<Record<string, number>> = { b: 1, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, tib: 2 ** 40, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12 };

/** '24 GiB', '24GiB', '24e9', '800 MB': bytes. Throws ConfigError. */
export function memorySize(text: string): number {
  const [, number = '', unit = ''] = /^\s*([\d.,]+(?:e\d+)?)\s*([a-z]*)\s*$/i.exec(text) ?? [];
  const size = Number(number.replaceAll(',', '')) * (units[unit === '' ? 'b' : unit.toLowerCase()] ?? NaN);
  if (Number.isFinite(size) && size > 0) return Math.floor(size);
  throw new LomoError('ConfigError', `--device ${JSON.stringify(text)}: expected a size such as "24 GiB" or a number of bytes (a card sold with 24 GB has 24 GiB)`);
}

/** The memory that `text` names, or this machine's. */
export function planDevice(text: string | undefined): PlanDevice {
  if (text === undefined) {
    const free = freeMemory();
    return { bytes: free, words: `the ${bytes(free)} that are free here`, named: false };
  }
  const size = memorySize(text);
  return { bytes: size, words: bytes(size), named: true };
}
