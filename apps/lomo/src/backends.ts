// Opens a backend by name. The only place that knows which packages they are; each is imported when it is asked for.
import { optimOps } from '@lomo/optim';
import type { Backend, Op } from '@lomo/tensor';
import { LomoError, ReferenceBackend, tensorOps } from '@lomo/tensor';
import type { Rates, RunConfig } from '@lomo/trainer';
import { arenaRoom } from '@lomo/trainer';
import { assumedGpuRates, cudaOptions, importCuda } from './cuda.ts';

export type BackendName = RunConfig['backend'];

export interface BackendOptions {
  /** cpu: processor threads. */
  readonly threads?: number | undefined;
  /** cuda: which GPU of those that are visible, from 0. */
  readonly gpu?: number | undefined;
  /** Plugins' own ops, which the reference can run. */
  readonly ops?: readonly Op[];
  /** Variables that say where CUDA's libraries are; the process's unless given. */
  readonly env?: NodeJS.ProcessEnv;
}

export interface OpenedBackend {
  readonly backend: Backend;
  /** What equal bits need beside equal settings. */
  readonly machine: Readonly<Record<string, string>>;
  /** One line for a person. */
  readonly description: string;
  /** Bytes that a run may reserve now, where its tensors live. */
  readonly freeMemory: () => number;
  /** What estimates of time are made from; null: the trainer's own, a processor's. */
  readonly rates: Rates | null;
  /** The GPU; null where tensors live in the memory of this process. */
  readonly gpu: OpenedGpu | null;
}

export interface OpenedGpu {
  /** Bytes of its memory that are taken now, by all processes together, as NVML tells, else the driver. Throws StickyDeviceError. */
  readonly taken: () => number;
  /** Bytes of its memory that were taken before this process came; null where NVML does not tell. */
  readonly takenBefore: number | null;
  /** 'by python (pid 1234) 20.10 GiB': who holds memory of it beside this process. */
  readonly heldBy: () => string;
}

/** What is planned with: a backend that answers for kernels and workspaces, which needs no GPU. */
export interface PlanningBackend extends Pick<OpenedBackend, 'backend' | 'description' | 'freeMemory' | 'rates'> {
  /** Whether tensors will live on a GPU; null where they live in the memory of this process. */
  readonly gpu: { readonly contextBytes: number; readonly startupBytes: number } | null;
}

/** Throws what the backend throws: a missing library names the package that brings it. MissingBackend where @lomo/cuda is not installed. */
export async function openBackend(name: BackendName, options: BackendOptions = {}): Promise<OpenedBackend> {
  if (name === 'cuda') return openCuda(options);
  refuseGpu(name, options);
  if (name === 'reference') {
    const backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps, ...(options.ops ?? [])], precision: 'f32' });
    return { backend, machine: { backend: 'reference', node: process.version }, description: 'reference (float64 loops: the definition, slow)', freeMemory, rates: null, gpu: null };
  }
  const { cpu } = await import('@lomo/cpu');
  const backend = cpu(options.threads === undefined ? {} : { threads: options.threads });
  const libraries = backend.libraries.map((library) => `${library.name} ${library.version}`).join(', ');
  return {
    backend,
    machine: { backend: 'cpu', isa: backend.isa, libraries, chunk: String(backend.traits.chunk) },
    description: `cpu, ${backend.threads} ${backend.threads === 1 ? 'thread' : 'threads'}, ${backend.isa}, ${libraries}`,
    freeMemory,
    rates: null,
    gpu: null,
  };
}

async function openCuda({ gpu, env = process.env }: BackendOptions): Promise<OpenedBackend> {
  const { cuda, gpuOccupancy, heldBy, startupBytes } = await importCuda();
  const options = cudaOptions(env, gpu);
  const used = ({ free, total }: { readonly free: number; readonly total: number }): number => total - free;
  let takenBefore: number | null = null;
  try {
    takenBefore = used(gpuOccupancy(options));
  } catch {
    // Without NVML a run says less about its memory; what else is missing is said when the backend is made.
  }
  const backend = cuda(options);
  const { facts, traits } = backend;
  const libraries = facts.libraries.map((library) => `${library.name} ${library.version}`).join(', ');
  return {
    backend,
    machine: { backend: 'cuda', gpu: `${facts.name}, ${facts.architecture}`, libraries, chunk: String(traits.chunk) },
    description: `cuda, GPU ${facts.device}: ${facts.name}, ${facts.architecture}, ${libraries}`,
    freeMemory: () => Math.max(0, backend.driverMemory().free - startupBytes),
    rates: assumedGpuRates,
    gpu: { taken: () => used(takenBefore === null ? backend.driverMemory() : gpuOccupancy(options)), takenBefore, heldBy: () => heldBy(options) },
  };
}

/** Nobody who names a GPU is to train on the processor. Throws ConfigError. */
function refuseGpu(name: BackendName, { gpu }: BackendOptions): void {
  if (gpu !== undefined) throw new LomoError('ConfigError', `gpu: ${gpu} names a GPU, and the backend is ${name}: give backend: cuda (--backend cuda), or leave gpu out`);
}

/** As `openBackend`, but nothing of CUDA is opened for a plan: only `freeMemory` asks the driver, and throws where there is none. */
export async function openPlanningBackend(name: BackendName, options: BackendOptions = {}): Promise<PlanningBackend> {
  if (name !== 'cuda') return { ...(await openBackend(name, options)), gpu: null };
  const { contextBytes, cudaTable, driverMemory, startupBytes } = await importCuda();
  const place = cudaOptions(options.env ?? process.env, options.gpu);
  return {
    backend: cudaTable(place),
    description: 'cuda, planned without a GPU',
    freeMemory: () => Math.max(0, driverMemory(place).free - startupBytes),
    rates: assumedGpuRates,
    gpu: { contextBytes, startupBytes },
  };
}

/** Bytes that a run's memory may still take in this process: what is free, cgroup limits included, less what training adds outside the arena. */
export function freeMemory(): number {
  return arenaRoom(process.availableMemory());
}
