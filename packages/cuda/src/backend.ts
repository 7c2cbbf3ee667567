// The CUDA backend: the verbs of @lomo/tensor over the native addon.
import { isLomoError, LomoError } from '@lomo/tensor';
import type { Event, Memory, Place, Queue } from '@lomo/tensor';
import { AddonBackend, guarded, queueIndex } from '@lomo/tensor/addon';
import { driverMemory, heldBy } from './machine.ts';
import { loadCudaAddon } from './native.ts';
import type { Counters, DriverMemory, Facts, NativeBackend } from './native.ts';
import { cudaTraits } from './table.ts';

export interface CudaOptions {
  /** Which GPU of those the driver sees, from 0; 0 unless given. */
  readonly device?: number;
  /** 'sync': wait after every launch and throw at once, also where a kernel wrote a NaN. Slow. */
  readonly debug?: 'sync';
  /** Path of libcuda.so.1, instead of searching for it. */
  readonly driver?: string;
  /** Path of libnvidia-ml.so.1, instead of searching for it: only messages ask it who holds memory. */
  readonly nvml?: string;
  /** Path of cuBLASLt's shared library, instead of searching for it. */
  readonly cublasLt?: string;
  /** Folders searched for libraries besides the loader's own and the system's, such as `$CUDA_HOME/lib64`. */
  readonly folders?: readonly string[];
  /** Path of a lomo_cuda.node built elsewhere, instead of this package's. */
  readonly addon?: string;
}

/** The native CUDA backend: one GPU, four streams, one thread that feeds them. */
export class CudaBackend extends AddonBackend<NativeBackend> {
  readonly name = 'cuda';
  readonly traits = cudaTraits;
  /** The GPU, and what was opened at run time. */
  readonly facts: Facts;
  private readonly options: CudaOptions;

  /**
   * Throws MissingAddon, MissingDriver, DriverTooOld, DriverMismatch, NoDevice, DeviceUnavailable, WrongArchitecture, MissingDeviceCode,
   * MissingLibrary, WrongLibrary or BadOption; each says what to do.
   */
  constructor(options: CudaOptions = {}) {
    const device = options.device ?? 0;
    if (!Number.isInteger(device) || device < 0) throw new LomoError('BadOption', `cuda: device is ${device}; GPUs are counted from 0`);
    const addon = loadCudaAddon(options.addon);
    super((packet) => new addon.NativeBackend(packet, { device, driver: options.driver ?? '', cublasLt: options.cublasLt ?? '', folders: options.folders ?? [] }), options.debug);
    this.facts = this.native.facts();
    this.options = options;
  }

  /** Throws OutOfMemory; MemoryHeld, which names the processes that hold it where NVML shows them; BadSize. */
  override memory(place: Place, bytes: number): Memory {
    try {
      return super.memory(place, bytes);
    } catch (error) {
      if (!isLomoError(error, 'MemoryHeld')) throw error;
      throw new LomoError(error.code, `${error.message}. It is held ${heldBy(this.options)}`, error.details, error);
    }
  }

  /** This GPU's memory as the driver sees it now, other processes included. Throws StickyDeviceError. */
  driverMemory(): DriverMemory {
    this.live();
    return driverMemory(this.options);
  }

  wait(queue: Queue, event: Event): void {
    this.live();
    guarded(() => this.native.wait(queueIndex[queue], queueIndex[event.queue], event.ticket));
  }

  /** Launches, native allocations and waits since the backend was made; for tests and plans. */
  counters(): Counters {
    this.live();
    return { ...this.native.counters(), waits: this.native.facts().waits };
  }
}

/** Makes a CUDA backend; dispose of it with `await using` or `[Symbol.asyncDispose]()`. */
export function cuda(options: CudaOptions = {}): CudaBackend {
  return new CudaBackend(options);
}
