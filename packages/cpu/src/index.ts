// @lomo/cpu: the native CPU backend.
export { CpuBackend, cpu } from './backend.ts';
export type { CpuOptions, Isa } from './backend.ts';
export type { Counters, Library } from '@lomo/tensor/addon';
export { availableCores } from './threads.ts';
export type { ReadText } from './threads.ts';
