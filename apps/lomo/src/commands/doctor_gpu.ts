// The GPU's part of lomo doctor: driver, GPUs, libraries, memory and who holds it, what it measures, what is missing and what brings it.
import { bytes } from '@lomo/trainer';
import { isLomoError } from '@lomo/tensor';
import { cudaOptions, importCuda } from '../cuda.ts';
import type { CudaPackage } from '../cuda.ts';
import type { Rate } from './doctor_rates.ts';
import { copyRate, productRate } from './doctor_rates.ts';
import { tinySteps } from './doctor_step.ts';

type Survey = ReturnType<CudaPackage['gpuSurvey']>;
type Occupancy = ReturnType<CudaPackage['gpuOccupancy']>;
type Backend = ReturnType<CudaPackage['cuda']>;

/** What is not there, and what brings it. */
export interface Missing {
  readonly code: string;
  readonly message: string;
}

/** Bytes of device memory that are taken beside any arena. */
export interface Startup {
  /** By the driver's context and by making a backend: streams, kernels, cuBLASLt. `context` is null where NVML does not tell. */
  readonly context: number | null;
  readonly opening: number;
  /** By the first products and the first steps of training. */
  readonly firstUse: number;
  /** All of it; null where the context's part is. */
  readonly total: number | null;
  /** What plans assume. */
  readonly assumed: number;
}

export interface GpuReport {
  /** Whether `--backend cuda` would run. */
  readonly usable: boolean;
  readonly missing: readonly Missing[];
  readonly driver: Pick<Survey, 'path' | 'version'> | null;
  readonly gpus: Survey['gpus'];
  /** The one that was looked at. */
  readonly gpu: number;
  /** What the kernels are compiled for. */
  readonly kernels: string | null;
  readonly libraries: readonly { readonly name: string; readonly version: string; readonly path: string }[];
  readonly memory: { readonly free: number; readonly total: number } | null;
  readonly occupancy: Occupancy | null;
  readonly startup: Startup | null;
  readonly rates: Readonly<Record<'bf16' | 'f32' | 'copy' | 'toDevice' | 'toHost', Rate>> | null;
  /** Losses of two steps of a tiny model, by dtype. */
  readonly steps: Readonly<Record<'f32' | 'bf16', readonly [number, number]>> | null;
}

/** Debian's and Ubuntu's, pip's and npm's names of what an error misses. */
const packages: Readonly<Record<string, string>> = {
  MissingDriver: 'apt: nvidia-driver-580 or newer (Debian: nvidia-driver); in a container: docker run --gpus all, with nvidia-container-toolkit on the host',
  DriverTooOld: 'apt: nvidia-driver-580 or newer',
  MissingLibrary: 'pip: nvidia-cublas (CUDA 13); apt: libcublas-13-0',
  MissingAddon: 'npx lomo-cuda nvcc, then npx lomo-cuda build',
  StaleAddon: 'npx lomo-cuda build',
  MissingDeviceCode: 'npx lomo-cuda nvcc (pip: nvidia-cuda-nvcc), then npx lomo-cuda build',
  MissingBackend: 'npm: @lomo/cuda',
};

/** The same of NVML, which comes with the driver and is left out of some containers. */
const nvmlPackages: Readonly<Record<string, string>> = { MissingLibrary: 'apt: libnvidia-compute-580, with the driver' };

/** Looks at GPU `gpu`, as far as there is something to look at; never throws for what is missing. */
export async function examineGpu(env: NodeJS.ProcessEnv, gpu: number): Promise<GpuReport> {
  const missing: Missing[] = [];
  /** Null where `body` meets what is missing, which is noted. */
  const attempt = async <T>(body: () => T | Promise<T>, brings: Readonly<Record<string, string>> = packages): Promise<T | null> => {
    try {
      return await body();
    } catch (error) {
      if (!isLomoError(error)) throw error;
      const by = brings[error.code];
      missing.push({ code: error.code, message: `${error.message}${by === undefined ? '' : `\nwhat brings it: ${by}`}` });
      return null;
    }
  };
  const report = { usable: false, missing, driver: null, gpus: [], gpu, kernels: null, libraries: [], memory: null, occupancy: null, startup: null, rates: null, steps: null };
  const options = cudaOptions(env, gpu);
  const cuda = await attempt(importCuda);
  if (cuda === null) return report;
  const kernels = await attempt(() => cuda.kernelsOf(options));
  const driver = kernels === null ? null : await attempt(() => cuda.gpuSurvey(options));
  if (driver === null) return { ...report, kernels };
  const found = { ...report, kernels, driver: { path: driver.path, version: driver.version }, gpus: driver.gpus };
  // Without NVML training runs all the same.
  const occupancy = await attempt(() => cuda.gpuOccupancy(options), nvmlPackages);
  const alone = await attempt(() => cuda.driverMemory(options));
  const backend = alone === null ? null : await attempt(() => cuda.cuda(options));
  if (alone === null || backend === null) return { ...found, occupancy, memory: occupancy };
  try {
    const opened = backend.driverMemory();
    const taken = (): number => {
      const { free, total } = cuda.gpuOccupancy(options);
      return total - free;
    };
    const withBackend = occupancy === null ? null : taken();
    const rates = await attempt(() => measure(backend, opened.free));
    const steps = rates === null ? null : await attempt(async () => ({ f32: await tinySteps(backend, 'f32'), bf16: await tinySteps(backend, 'bf16') }));
    const used = backend.driverMemory();
    const opening = alone.free - opened.free;
    const firstUse = opened.free - used.free;
    const context = withBackend === null || occupancy === null ? null : withBackend - (occupancy.total - occupancy.free) - opening;
    const startup = { context, opening, firstUse, total: context === null ? null : context + opening + firstUse, assumed: cuda.contextBytes + cuda.startupBytes };
    return { ...found, usable: steps !== null, occupancy, libraries: backend.facts.libraries, memory: { free: opened.free, total: opened.total }, startup, rates, steps };
  } finally {
    await backend[Symbol.asyncDispose]();
  }
}

async function measure(backend: Backend, free: number): Promise<NonNullable<GpuReport['rates']>> {
  const room = free / 2;
  return {
    bf16: await productRate(backend, 'bf16', { room }),
    f32: await productRate(backend, 'f32', { room }),
    copy: await copyRate(backend, { to: 'device', from: 'device' }, { most: 2 ** 30, room }),
    toDevice: await copyRate(backend, { to: 'device', from: 'pinned' }, { most: 2 ** 28, room }),
    toHost: await copyRate(backend, { to: 'pinned', from: 'device' }, { most: 2 ** 28, room }),
  };
}

/** The report as rows of a table, and the paragraphs below it. */
export function gpuWords(report: GpuReport): { readonly rows: readonly (readonly [string, string])[]; readonly notes: readonly string[] } {
  const { driver, gpus, gpu, kernels, libraries, memory, occupancy, startup, rates, steps, missing, usable } = report;
  const rows: [string, string][] = [];
  if (driver !== null) {
    rows.push(['driver', `${occupancy === null ? '' : `${occupancy.version}, `}for CUDA ${driver.version}, ${driver.path}`]);
    for (const [i, g] of gpus.entries()) rows.push([`GPU ${i}`, `${g.name}, ${g.architecture}, ${g.multiprocessors} multiprocessors, ${bytes(g.memory)}, ${g.bus}${i === gpu && gpus.length > 1 ? ' (looked at below)' : ''}`]);
    if (kernels !== null && kernels !== '') rows.push(['kernels', `compiled for ${kernels}`]);
    for (const { name, version, path } of libraries) if (name !== 'CUDA driver') rows.push([name, `${version}, ${path}`]);
    if (occupancy !== null) rows.push(['NVML', occupancy.path]);
  }
  if (memory !== null) rows.push(['GPU memory', `${bytes(memory.free)} free of ${bytes(memory.total)}${holders(occupancy)}`]);
  if (startup !== null) {
    const { context, opening, firstUse, total, assumed } = startup;
    const whole = total === null ? `${bytes(opening + firstUse)} and the context, which cannot be told without NVML` : bytes(total);
    const parts = `${context === null ? '' : `context ${bytes(context)}, `}backend ${bytes(opening)}, first use ${bytes(firstUse)}`;
    rows.push(['start-up', `${whole}: ${parts}; plans assume ${bytes(assumed)}`]);
  }
  if (rates !== null) {
    const { bf16, f32, copy, toDevice, toHost } = rates;
    rows.push(['bf16 products', flopWords(bf16)], ['f32 products', flopWords(f32)]);
    rows.push(['copy', `${speed(2 * copy.perSecond)}, read and written, in GPU memory (${bytes(copy.size)})`]);
    rows.push(['host link', `${speed(toDevice.perSecond)} to the GPU, ${speed(toHost.perSecond)} back, pinned (${bytes(toDevice.size)})`]);
  }
  if (steps !== null) rows.push(['training', `a tiny model, two steps: loss ${steps.f32.map((loss) => loss.toFixed(3)).join(', ')} in f32, ${steps.bf16.map((loss) => loss.toFixed(3)).join(', ')} in bf16`]);
  const said = missing.map(({ message }) => message.replaceAll('\n', '\n    '));
  if (usable) return { rows, notes: said.map((text) => `note: ${text}`) };
  const first = `no GPU that lomo can use: ${said.join('\n  and: ')}`;
  return { rows, notes: [`${first}\n  The processor's backend needs none of this.`] };
}

function holders(occupancy: Occupancy | null): string {
  if (occupancy === null) return '; who holds the rest cannot be told without NVML';
  const others = occupancy.holders.filter(({ pid }) => pid !== process.pid);
  if (others.length === 0) return '; NVML shows no other process on it';
  return `; held by ${others.toSorted((a, b) => b.bytes - a.bytes).map(({ pid, name, bytes: size }) => `${name === '' ? 'a process' : name} (pid ${pid})${size < 0 ? '' : ` ${bytes(size)}`}`).join(', ')}`;
}

function flopWords({ perSecond, size }: Rate): string {
  const words = perSecond >= 1e12 ? `${(perSecond / 1e12).toFixed(1)} TFLOP/s` : `${(perSecond / 1e9).toPrecision(3)} GFLOP/s`;
  return `${words} (${size} x ${size} x ${size})`;
}

function speed(bytesPerSecond: number): string {
  return `${(bytesPerSecond / 1e9).toPrecision(3)} GB/s`;
}
