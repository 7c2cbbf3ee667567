// What a plan is held against: this machine, or memory that somebody names.
import { isLomoError, LomoError } from '@lomo/tensor';
import type { PlanningBackend } from '../backends.ts';
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

/** The memory that `text` names, or this machine's: of a GPU, what a run may reserve of it. Throws what the driver throws where no GPU is here and none is named. */
export function planDevice(text: string | undefined, { gpu, freeMemory }: Pick<PlanningBackend, 'gpu' | 'freeMemory'>): PlanDevice {
  if (text !== undefined) {
    const size = memorySize(text);
    if (gpu === null) return { bytes: size, words: bytes(size), named: true };
    const own = gpu.contextBytes + gpu.startupBytes;
    if (size > own) return { bytes: size - own, words: `${bytes(size)} less ${bytes(own)} that CUDA takes itself`, named: true };
    throw new LomoError('ConfigError', `--device ${JSON.stringify(text)}: CUDA itself takes about ${bytes(own)} of a GPU`);
  }
  try {
    const free = freeMemory();
    return { bytes: free, words: `the ${bytes(free)} that are free ${gpu === null ? 'here' : `on the GPU, less ${bytes(gpu.startupBytes)} for start-up`}`, named: false };
  } catch (error) {
    if (gpu === null || !isLomoError(error)) throw error;
    throw new LomoError(error.code, `a plan needs no GPU where the memory is named: --device "24 GiB". What is free cannot be asked here: ${error.message}`, error.details, error);
  }
}
