// The app on the host double of CUDA: the built command with the variables that lead it there, and the double's own.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const release = process.env['LOMO_TEST_DOUBLE'] ?? fileURLToPath(new URL('../../../packages/cuda/build/double/Release', import.meta.url));
const library = `${release}/liblomo_double.so`;

/** Whether the double is built: `pnpm --filter @lomo/cuda test:double` builds it. */
export const isDoubleBuilt = existsSync(library);

/** Variables that make `--backend cuda` run on the double. */
export const onDouble: Readonly<Record<string, string>> = { LOMO_CUDA_ADDON: `${release}/lomo_cuda.node`, LOMO_CUDA_DRIVER: library, LOMO_CUBLASLT: library, LOMO_NVML: library };
