// Where the GPU bench runs: on a GPU, or on the host double that stands in for one where there is none.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CudaBackend, MachineOptions } from '@lomo/cuda';
import { cuda } from '@lomo/cuda';

/** A GPU by its number and the folders its libraries may be in, or the folder of a build of the double. Plain data: processes hand it on. */
export type Where = { readonly gpu: number; readonly folders: readonly string[]; readonly addon?: string } | { readonly double: string };

/** Opens the backend there. Throws what `cuda` throws. */
export function openCuda(where: Where): CudaBackend {
  if ('gpu' in where) return cuda({ device: where.gpu, folders: where.folders, ...(where.addon === undefined ? {} : { addon: where.addon }) });
  const library = join(where.double, 'liblomo_double.so');
  return cuda({ addon: join(where.double, 'lomo_cuda.node'), driver: library, cublasLt: library });
}

/** What asks the driver about the GPU there, or about the double's. */
export function machineOptions(where: Where): MachineOptions {
  if ('gpu' in where) return { device: where.gpu, ...(where.addon === undefined ? {} : { addon: where.addon }) };
  const library = join(where.double, 'liblomo_double.so');
  return { addon: join(where.double, 'lomo_cuda.node'), driver: library, nvml: library };
}

/** Folder of the running file: of a bundle that was carried elsewhere, dist/ or src/gpu/. */
export const programFolder = dirname(fileURLToPath(import.meta.url));

/** The double's build: beside a carried bundle, else packages/cuda/build/double/Release. Throws where there is none, saying how to build it. */
export function doubleFolder(): string {
  const places = [join(programFolder, 'double'), ...['..', '../..'].map((up) => join(programFolder, up, '..', 'packages', 'cuda', 'build', 'double', 'Release'))];
  const found = places.find((place) => existsSync(join(place, 'liblomo_double.so')));
  if (found === undefined) throw new Error(`the host double is not built: node packages/cuda/scripts/build.mjs --double (looked at ${places.join(', ')})`);
  return found;
}

/** The addon of a carried bundle; undefined where there is none, and the package's own is taken. */
export function carriedAddon(): string | undefined {
  const place = join(programFolder, 'lomo_cuda.node');
  return existsSync(place) ? place : undefined;
}
