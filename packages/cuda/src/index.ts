// @lomo/cuda: the native CUDA backend; what plans need of it without a GPU; what can be asked about a machine's GPUs.
export { CudaBackend, cuda } from './backend.ts';
export type { CudaOptions } from './backend.ts';
export type { Algorithms, ProductAlgorithm } from './algorithms.ts';
export { Communicator } from './communicator.ts';
export type { CommunicatorOptions, Parcels, Reduction } from './communicator.ts';
export { driverMemory, gpuOccupancy, gpuSurvey, heldBy, kernelsOf } from './machine.ts';
export type { MachineOptions } from './machine.ts';
export type { Counters, DriverMemory, Facts, Gpu, Holder, Occupancy, Survey } from './native.ts';
export { contextBytes, startupBytes } from './startup.ts';
export { CudaTable, cudaTable } from './table.ts';
export type { Library } from '@lomo/tensor/addon';
