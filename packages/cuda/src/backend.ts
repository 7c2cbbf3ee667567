// The CUDA backend: the verbs of @lomo/tensor over the native addon.
import { isLomoError, LomoError } from '@lomo/tensor';
import type { Event, Memory, Place, Queue } from '@lomo/tensor';
import type { Library } from '@lomo/tensor/addon';
import { AddonBackend, guarded, queueIndex } from '@lomo/tensor/addon';
import { Communicator, isPlace } from './communicator.ts';
import type { CommunicatorOptions } from './communicator.ts';
import { driverMemory, heldBy } from './machine.ts';
import { loadCudaAddon } from './native.ts';
import type { Addon, Counters, DriverMemory, Facts, NativeBackend } from './native.ts';
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
  /** Path of NCCL's shared library, instead of searching for it; opened with the first communicator. */
  readonly nccl?: string;
  /** Folders searched for libraries besides the loader's own and the system's, such as `$CUDA_HOME/lib64`; for NCCL also Python environments. */
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
  private readonly addon: Addon;

  /**
   * Throws MissingAddon, MissingDriver, DriverTooOld, DriverMismatch, NoDevice, DeviceUnavailable, WrongArchitecture, MissingDeviceCode,
   * MissingLibrary, WrongLibrary or BadOption; each says what to do.
   */
  constructor(options: CudaOptions = {}) {
    const device = options.device ?? 0;
    if (!Number.isInteger(device) || device < 0) throw new LomoError('BadOption', `cuda: device is ${device}; GPUs are counted from 0`);
    const addon = loadCudaAddon(options.addon);
    super((packet) => new addon.NativeBackend(packet, { device, driver: options.driver ?? '', cublasLt: options.cublasLt ?? '', nccl: options.nccl ?? '', folders: options.folders ?? [] }), options.debug);
    this.addon = addon;
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

  /** Opens NCCL and says which it is. Throws MissingLibrary, WrongLibrary or NcclTooOld. */
  nccl(): Library {
    this.live();
    return guarded(() => this.addon.nccl(this.native));
  }

  /** An id for a new communicator, 128 bytes: one rank asks, all get it. Throws what `nccl()` throws, and NcclError. */
  communicatorId(): Uint8Array {
    this.live();
    return guarded(() => this.addon.communicatorId(this.native));
  }

  /**
   * This backend as a rank of a communicator. Returns at once; the ranks meet in the background, and the first call's work waits for that.
   * Throws BadOption and what `nccl()` throws.
   */
  communicator({ rank, size, id, timeout = 600_000 }: CommunicatorOptions): Communicator {
    this.live();
    if (!Number.isInteger(size) || size < 1 || size > 1 << 20) throw new LomoError('BadOption', `cuda: a communicator of ${size} ranks; it has at least 1`);
    if (!isPlace(rank, size)) throw new LomoError('BadOption', `cuda: rank ${rank} is not one of ${size}, counted from 0`);
    if (!(timeout > 0 && timeout <= 2 ** 31)) throw new LomoError('BadOption', `cuda: a communicator's timeout is ${timeout}; it is milliseconds, more than 0`);
    const library = this.nccl();
    const number = guarded(() => this.addon.join(this.native, rank, size, id, timeout));
    const end = (why: string): void => {
      try {
        guarded(() => this.addon.abort(this.native, number, why));
      } catch (error) {
        if (!isLomoError(error, 'BackendClosed')) throw error; // nothing is left to end
      }
    };
    return new Communicator(this, number, rank, size, end, library);
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
