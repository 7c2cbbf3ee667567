// What can be asked about a machine's GPUs without a backend: which there are, how much memory is free, who holds it.
import { guarded } from '@lomo/tensor/addon';
import { loadCudaAddon } from './native.ts';
import type { DriverMemory, NativePlace, Occupancy, Survey } from './native.ts';

/** Where the driver's libraries are, and which GPU is meant. */
export interface MachineOptions {
  /** Which GPU of those the driver sees, from 0; 0 unless given. */
  readonly device?: number;
  /** Path of libcuda.so.1, instead of searching for it. */
  readonly driver?: string;
  /** Path of libnvidia-ml.so.1, instead of searching for it. */
  readonly nvml?: string;
  /** Path of a lomo_cuda.node built elsewhere, instead of this package's. */
  readonly addon?: string;
}

function placeOf({ device = 0, driver = '', nvml = '' }: MachineOptions): NativePlace {
  return { device, driver, nvml };
}

/** The driver and every GPU that it sees; takes no memory of any. Throws MissingAddon, MissingDriver, DriverTooOld, DriverMismatch or NoDevice. */
export function gpuSurvey(options: MachineOptions = {}): Survey {
  const addon = loadCudaAddon(options.addon);
  return guarded(() => addon.survey(placeOf(options)));
}

/**
 * Free and total memory of one GPU, in this process's context: a backend's, else one made for the moment. Throws what `gpuSurvey` does,
 * BadOption, DeviceUnavailable, OutOfMemory, StickyDeviceError.
 */
export function driverMemory(options: MachineOptions = {}): DriverMemory {
  const addon = loadCudaAddon(options.addon);
  return guarded(() => addon.memory(placeOf(options)));
}

/** Who holds a GPU's memory. Throws what `gpuSurvey` does, and where NVML does not answer MissingLibrary, WrongLibrary or NvmlError. */
export function gpuOccupancy(options: MachineOptions = {}): Occupancy {
  const addon = loadCudaAddon(options.addon);
  return guarded(() => addon.occupancy(placeOf(options)));
}

/** What the kernels of this build are compiled for, as 'sm_80 sm_90 compute_90'; opens nothing of CUDA. Throws MissingAddon. */
export function kernelsOf(options: Pick<MachineOptions, 'addon'> = {}): string {
  return loadCudaAddon(options.addon).kernels;
}

const gibibyte = 2 ** 30;

/** 'python (pid 1234) 20.10 GiB, pid 99', largest first, without this process; why nobody can tell, where nobody can. */
export function heldBy(options: MachineOptions = {}): string {
  let others: Occupancy['holders'];
  try {
    others = gpuOccupancy(options).holders.filter(({ pid }) => pid !== process.pid);
  } catch (error) {
    return `by whom cannot be told (${error instanceof Error ? error.message.split('\n')[0]!.replace(/ Tried:$/, '') : String(error)})`;
  }
  if (others.length === 0) return 'by processes that NVML does not show from here, such as those outside this container';
  const words = others.toSorted((a, b) => b.bytes - a.bytes).map(({ pid, name, bytes }) => `${name === '' ? 'pid' : `${name} (pid`} ${pid}${name === '' ? '' : ')'}${bytes < 0 ? '' : ` ${(bytes / gibibyte).toFixed(2)} GiB`}`);
  return `by ${words.join(', ')}`;
}
