// The CUDA backend: the verbs of @lomo/tensor over the native addon.
import { isLomoError, LomoError, sizeOf } from '@lomo/tensor';
import type { BackendTraits, Event, Memory, Place, Queue, Region, Stopwatch } from '@lomo/tensor';
import type { Library } from '@lomo/tensor/addon';
import { AddonBackend, AddonStopwatch, HostMemory, guarded, queueIndex, translate } from '@lomo/tensor/addon';
import { chooser, mismatch } from './algorithms.ts';
import type { Algorithms, ProductAlgorithm } from './algorithms.ts';
import { Communicator, isPlace } from './communicator.ts';
import type { CommunicatorOptions } from './communicator.ts';
import { driverMemory, heldBy } from './machine.ts';
import { loadCudaAddon } from './native.ts';
import type { Addon, Counters, DriverMemory, Facts, NativeBackend } from './native.ts';

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
  /** What `algorithms()` said in an earlier run, so that products have the same bits. Discarded where library or GPU differ: `discarded`. */
  readonly algorithms?: Algorithms;
  /** A profiler's injection library, which it names in NVTX_INJECTION64_PATH: ranges named as the ops are. Nothing is opened without. */
  readonly nvtx?: string;
}

/** The native CUDA backend: one GPU, four streams, one thread that feeds them. */
export class CudaBackend extends AddonBackend<NativeBackend> {
  readonly name = 'cuda';
  readonly traits: BackendTraits;
  /** The GPU, and what was opened at run time. */
  readonly facts: Facts;
  readonly stopwatch: Stopwatch;
  /** Why the given algorithms were not taken, as a line to print; null where they were, or none were given. */
  readonly discarded: string | null;
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
    super((packet) => new addon.NativeBackend(packet, { device, driver: options.driver ?? '', cublasLt: options.cublasLt ?? '', nccl: options.nccl ?? '', folders: options.folders ?? [], nvtx: options.nvtx ?? '' }), options.debug);
    this.addon = addon;
    this.traits = { chunk: addon.chunk };
    this.facts = this.native.facts();
    this.options = options;
    this.stopwatch = new AddonStopwatch(this.native);
    const { algorithms } = options;
    this.discarded = algorithms === undefined ? null : mismatch(algorithms, chooser(this.facts));
    if (algorithms !== undefined && this.discarded === null) guarded(() => this.native.adopt(algorithms.products));
  }

  /** Throws OutOfMemory; MemoryHeld, which names the processes that hold it where NVML shows them; BadSize. */
  override memory(place: Place, bytes: number): Memory {
    try {
      const memory = super.memory(place, bytes);
      return place === 'pinned' ? new HostMemory(this.native, place, bytes, memory.id) : memory;
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

  /** Which algorithms multiply, so far: data for the `algorithms` of a later backend. */
  algorithms(): Algorithms {
    this.live();
    return { ...chooser(this.facts), products: this.native.algorithms() as readonly ProductAlgorithm[] };
  }

  /**
   * Measures, in `scratch`, the candidates for every product that `workspace` was asked about (a dry step asks for all of its own) and that
   * has no algorithm yet; resolves to all that are chosen then. Before the first step: an algorithm that has been used stays. Without, the
   * library's first suggestion is taken. Waits for the GPU; allocates nothing on it. Rejects with CublasError.
   */
  async tune(scratch: Region): Promise<Algorithms> {
    this.live();
    const bytes = scratch.shape.reduce((product, n) => product * n, sizeOf(scratch.dtype));
    try {
      await this.native.tune(scratch.memory.id, scratch.offset, bytes);
    } catch (error) {
      throw translate(error, 'tune');
    }
    return this.algorithms();
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
