// A backend on the host double, for tests.
import { fileURLToPath } from 'node:url';
import { cuda } from '../src/index.ts';
import type { CudaBackend, CudaOptions } from '../src/index.ts';

const release = process.env['LOMO_TEST_DOUBLE'] ?? fileURLToPath(new URL('../build/double/Release', import.meta.url));

/** Options that make `cuda()` run on the double. */
export const onDouble: CudaOptions = { addon: `${release}/lomo_cuda.node`, driver: `${release}/liblomo_double.so`, cublasLt: `${release}/liblomo_double.so`, nccl: `${release}/liblomo_double.so` };

/** A backend on the double; its environment variables (native/double/cuda.cpp) are read as they stand when they are needed. */
export function double(options: CudaOptions = {}): CudaBackend {
  return cuda({ ...onDouble, ...options });
}
