// The optional package @lomo/cuda: imported when it is asked for, told by the environment where CUDA's libraries are.
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { LomoError } from '@lomo/tensor';
import type { Rates } from '@lomo/trainer';

/** What the package exports; types alone. */
export type CudaPackage = typeof import('@lomo/cuda');
type CudaOptions = NonNullable<Parameters<CudaPackage['cuda']>[0]>;

/** Variables that say where things are; `lomo doctor` prints them. */
export const cudaVariables: Readonly<Record<string, string>> = {
  LOMO_CUDA_DRIVER: 'path of libcuda.so.1',
  LOMO_CUBLASLT: "path of cuBLASLt's library",
  LOMO_NVML: 'path of libnvidia-ml.so.1',
  LOMO_CUDA_ADDON: 'path of a lomo_cuda.node',
  LOMO_CUDA_SYNC: '1: wait after every launch, so that an error names the kernel it comes from; slow',
};

/** What a GPU of a data centre does, where nobody has measured this one: 16-bit products, its memory, a plain SSD. */
export const assumedGpuRates: Rates = { flops: 250e12, memory: 1.5e12, disk: 0.5e9 };

/** Imports @lomo/cuda. Throws MissingBackend, with the command, where it is not installed. */
export async function importCuda(): Promise<CudaPackage> {
  try {
    return await import('@lomo/cuda');
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'ERR_MODULE_NOT_FOUND' || !error.message.includes('@lomo/cuda')) throw error;
    throw new LomoError('MissingBackend', 'backend: cuda needs the package @lomo/cuda, which is not installed here: npm install @lomo/cuda; or train on the processor with --backend cpu', {}, error);
  }
}

/** Options of `cuda()` as the environment has them. */
export function cudaOptions(env: NodeJS.ProcessEnv, gpu = 0): CudaOptions {
  const { LOMO_CUDA_DRIVER: driver, LOMO_CUBLASLT: cublasLt, LOMO_NVML: nvml, LOMO_CUDA_ADDON: addon, LOMO_CUDA_SYNC: sync } = env;
  return {
    device: gpu,
    folders: libraryFolders(env),
    ...(driver ? { driver } : {}),
    ...(cublasLt ? { cublasLt } : {}),
    ...(nvml ? { nvml } : {}),
    ...(addon ? { addon } : {}),
    ...(sync === '1' ? { debug: 'sync' } : {}),
  };
}

/** Folders of cuBLASLt beside the system's: CUDA's own, and where pip puts nvidia-cublas in the environments at hand. */
function libraryFolders(env: NodeJS.ProcessEnv): readonly string[] {
  const homes = [env['CUDA_HOME'], env['CUDA_PATH']].filter((home) => home !== undefined && home !== '');
  const pythons = [env['VIRTUAL_ENV'], env['CONDA_PREFIX'], join(homedir(), '.local'), '/usr/local', '/usr'].filter((prefix) => prefix !== undefined && prefix !== '');
  return [
    ...homes.map((home) => join(home!, 'lib64')),
    ...pythons.flatMap((prefix) => sitePackages(join(prefix!, 'lib'))).flatMap((site) => ['cu13', 'cublas'].map((folder) => join(site, 'nvidia', folder, 'lib'))).filter((folder) => existsSync(folder)),
    ...(env['CONDA_PREFIX'] ? [join(env['CONDA_PREFIX'], 'lib')] : []),
  ];
}

function sitePackages(lib: string): string[] {
  const versions = existsSync(lib) ? readdirSync(lib).filter((name) => /^python3(\.\d+)?$/.test(name)) : [];
  return versions.flatMap((version) => ['site-packages', 'dist-packages'].map((name) => join(lib, version, name)));
}
