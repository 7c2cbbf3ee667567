// @lomo/cuda: the native CUDA backend.
export { CudaBackend, cuda } from './backend.ts';
export type { CudaOptions } from './backend.ts';
export type { Counters, Facts } from './native.ts';
export type { Library } from '@lomo/tensor/addon';
