// This package's addon: what it says about itself and its GPU, and where it is.
import { fileURLToPath } from 'node:url';
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
  /** Times the executor's thread has waited for the GPU so far. */
  readonly waits: number;
}

/** Counts since the backend was made. */
export interface Counters extends SharedCounters {
  /** Times the executor's thread waited for the GPU: for reads, and where writes outran 16 MiB of staging. */
  readonly waits: number;
}

export interface NativeBackend extends NativeVerbs {
  facts(): Facts;
}

export interface NativeOptions {
  readonly device: number;
  readonly driver: string;
  readonly cublasLt: string;
  readonly folders: readonly string[];
}

/** The addon's one export. */
export interface Addon {
  readonly NativeBackend: new (packet: Float64Array, options: NativeOptions) => NativeBackend;
}

/** Folder of this package, from src/ as from dist/. */
export const packageFolder = fileURLToPath(new URL('..', import.meta.url));

/** Loads the addon: the file at `path`, if given. Loading opens nothing of CUDA. Throws MissingAddon with every place tried. */
export function loadCudaAddon(path?: string): Addon {
  return loadAddon({ name: '@lomo/cuda', folder: packageFolder, file: 'lomo_cuda.node', advice: 'pnpm --filter @lomo/cuda build:native (needs cmake, ninja, a C++20 compiler and nvcc 13)', ...(path === undefined ? {} : { path }) });
}
