// @lomo/cuda: the native CUDA backend.
export { CudaBackend, cuda } from './backend.ts';
export type { CudaOptions } from './backend.ts';
export type { Counters, Facts, Library } from './native.ts';
