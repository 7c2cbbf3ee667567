// A run on a GPU: its memory as the driver sees it, and what is said where the GPU fails it.
import type { Session } from '@lomo/trainer';
import { bytes } from '@lomo/trainer';
import { isLomoError, LomoError } from '@lomo/tensor';
import type { OpenedGpu } from '../backends.ts';

/** Steps until driver and libraries have loaded what they load when it is first wanted. */
const warm = 2;

/** Bytes of a page of device memory: the driver gives nothing smaller for an arena. */
export const devicePage = 2 ** 21;

/** Device memory as the driver sees it, over a run: the arena and a constant, and after the second step nothing more. */
export class GpuMemory {
  private readonly gpu: OpenedGpu;
  private readonly extent: number;
  private steps = 0;
  private settled: number | null = null;

  /** `extent`: bytes of the run's arena. */
  constructor(gpu: OpenedGpu, extent: number) {
    this.gpu = gpu;
    this.extent = extent;
  }

  /** To be called after every step. */
  stepped(): void {
    if (++this.steps === warm) this.settled = this.taken();
  }

  /** What to print at the end; null where fewer than two steps ran. The driver counts all processes together: others show as movement. */
  line(): string | null {
    const now = this.taken();
    if (this.settled === null || now === null) return null;
    const moved = now - this.settled;
    const { takenBefore } = this.gpu;
    const arena = Math.ceil(this.extent / devicePage) * devicePage;
    const whole = takenBefore === null ? '' : `${bytes(this.settled - takenBefore)} = arena ${bytes(arena)} (${bytes(this.extent)} in pages) + start-up ${bytes(this.settled - takenBefore - arena)}; `;
    return `GPU memory as the driver sees it: ${whole}${moved === 0 ? '+0' : `${moved > 0 ? '+' : '-'}${bytes(Math.abs(moved))}`} after step 2${moved === 0 ? '' : ' (other processes on this GPU included)'}`;
  }

  /** Null where it cannot be told: no run ends because of a figure that is printed. */
  private taken(): number | null {
    try {
      return this.gpu.taken();
    } catch {
      return null;
    }
  }
}

/** The error of a run that would fit, were it alone on the GPU, as MemoryHeld with who holds its memory; any other as it is. */
export function withHolders(error: unknown, gpu: OpenedGpu | null): unknown {
  if (gpu === null || gpu.takenBefore === null || !isLomoError(error, 'DoesNotFit')) return error;
  const { needed, memory } = error.details;
  if (typeof needed !== 'number' || typeof memory !== 'number' || needed > memory + gpu.takenBefore) return error;
  return new LomoError('MemoryHeld', `${error.message}\nof the GPU's memory ${bytes(gpu.takenBefore)} were taken before, ${gpu.heldBy()}: end them, wait for them, or choose another GPU with --gpu`, error.details, error);
}

/** Errors that end a run because of its GPU, not because of its settings or data. */
const faults: readonly string[] = ['StickyDeviceError', 'CudaError', 'CublasError', 'OutOfMemory', 'MemoryHeld', 'DeviceUnavailable'];

/** The error with what is safe and the command that goes on, where a GPU has ended the run; any other as it is. */
export async function withCheckpoint(error: unknown, session: Session, next: string): Promise<unknown> {
  if (session.config.backend !== 'cuda' || !isLomoError(error) || !faults.includes(error.code)) return error;
  const newest = await session.newest().catch(() => null);
  const path = newest?.path ?? null;
  const safe = newest === null ? `the checkpoints in ${session.root} could not be looked at` : path === null ? 'nothing had been saved yet' : `the last checkpoint is whole: ${path}`;
  const kernel = error.code === 'StickyDeviceError' && process.env['LOMO_CUDA_SYNC'] !== '1' ? '\n  which kernel it was: LOMO_CUDA_SYNC=1 before that command waits after each one, and names it' : '';
  const then = path !== null ? 'goes on from there' : newest === null ? 'goes on from the newest' : 'begins again';
  return new LomoError(error.code, `step ${session.done + 1}: ${error.message}\n  ${safe}\n  next, in a new process: ${next} (${then})${kernel}`, error.details, error);
}
