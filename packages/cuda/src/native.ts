// This package's addon: what it says about itself and its GPU, and where it is.
import { fileURLToPath } from 'node:url';
import { LomoError } from '@lomo/tensor';
import { loadAddon } from '@lomo/tensor/addon';
import type { Counters as SharedCounters, Library, NativeVerbs } from '@lomo/tensor/addon';

/** What the addon says about itself and its GPU. */
export interface Facts {
  /** Which GPU of those the driver sees, from 0. */
  readonly device: number;
  readonly name: string;
  /** 'sm_90'. */
  readonly architecture: string;
  readonly multiprocessors: number;
  /** Bytes of device memory. */
  readonly memory: number;
  /** What the kernels are compiled for, as 'sm_80 sm_90 compute_90'; empty in a build for the host double. */
  readonly kernels: string;
  readonly libraries: readonly Library[];
  /** Times the thread that feeds the queues has waited for the GPU so far. */
  readonly waits: number;
}

/** Counts since the backend was made. */
export interface Counters extends SharedCounters {
  /** Times the thread that feeds the queues waited for the GPU: where writes outran 16 MiB of staging, or reads as much. */
  readonly waits: number;
}

/** A GPU that the driver sees. */
export interface Gpu {
  readonly name: string;
  /** 'sm_90'. */
  readonly architecture: string;
  readonly multiprocessors: number;
  /** Bytes of device memory. */
  readonly memory: number;
  /** PCI address, '0000:01:00.0'. */
  readonly bus: string;
}

/** The driver, and the GPUs it sees in their order. */
export interface Survey {
  /** Where libcuda.so.1 was found. */
  readonly path: string;
  /** The CUDA version it is for, '13.0'. */
  readonly version: string;
  readonly gpus: readonly Gpu[];
}

/** Device memory as the driver sees it, bytes: of all processes together. */
export interface DriverMemory {
  readonly free: number;
  readonly total: number;
}

/** A process that holds memory of a GPU. */
export interface Holder {
  readonly pid: number;
  /** Empty where it cannot be seen from here, as from inside a container. */
  readonly name: string;
  /** -1 where the driver does not tell. */
  readonly bytes: number;
}

/** Who holds a GPU's memory, by NVML; bytes. */
export interface Occupancy extends DriverMemory {
  /** Where libnvidia-ml.so.1 was found. */
  readonly path: string;
  /** The driver's own version, '580.65.06'. */
  readonly version: string;
  readonly holders: readonly Holder[];
}

export interface NativeBackend extends NativeVerbs {
  facts(): Facts;
}

export interface NativeOptions {
  readonly device: number;
  readonly driver: string;
  readonly cublasLt: string;
  readonly nccl: string;
  readonly folders: readonly string[];
  readonly nvtx: string;
}

/** The kernel table of the addon: constants alone. */
export type NativeTable = Pick<NativeVerbs, 'find' | 'attributes' | 'supported' | 'workspace'>;

/** Paths of the driver's libraries, '' where they are to be searched for, and a GPU. */
export interface NativePlace {
  readonly driver: string;
  readonly nvml: string;
  readonly device: number;
}

/** What the addon exports. */
export interface Addon {
  /** Tokens per partial sum in every sum over tokens: the kernels' constant. */
  readonly chunk: number;
  readonly NativeBackend: new (packet: Float64Array, options: NativeOptions) => NativeBackend;
  readonly KernelTable: new (packet: Float64Array) => NativeTable;
  /** What the kernels are compiled for, as 'sm_80 sm_90 compute_90'; empty in a build for the host double. */
  readonly kernels: string;
  survey(place: NativePlace): Survey;
  memory(place: NativePlace): DriverMemory;
  occupancy(place: NativePlace): Occupancy;
  nccl(backend: NativeBackend): Library;
  communicatorId(backend: NativeBackend): Uint8Array;
  /** Returns the communicator's number, the first attribute of its kernels. */
  join(backend: NativeBackend, rank: number, size: number, id: Uint8Array, timeout: number): number;
  abort(backend: NativeBackend, communicator: number, why: string): void;
}

/** Folder of this package, from src/ as from dist/. */
export const packageFolder = fileURLToPath(new URL('..', import.meta.url));

const advice = 'npx lomo-cuda build (needs cmake, ninja, a C++20 compiler and nvcc 13, which npx lomo-cuda nvcc brings)';

/** Loads the addon: the file at `path`, if given. Loading opens nothing of CUDA. Throws MissingAddon with every place tried, StaleAddon where it was built from older sources. */
export function loadCudaAddon(path?: string): Addon {
  const addon = loadAddon<Partial<Addon>>({ name: '@lomo/cuda', folder: packageFolder, file: 'lomo_cuda.node', advice, ...(path === undefined ? {} : { path }) });
  if (isWhole(addon)) return addon;
  throw new LomoError('StaleAddon', `${path ?? "@lomo/cuda's addon"} was built from older sources than this package's. Compile it again: ${advice}`);
}

function isWhole(addon: Partial<Addon>): addon is Addon {
  return [addon.NativeBackend, addon.KernelTable, addon.survey, addon.memory, addon.occupancy].every((entry) => typeof entry === 'function') && typeof addon.kernels === 'string';
}
