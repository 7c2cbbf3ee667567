// Kernels that the build must refuse, each for one reason that its name says, and one that it must not. scripts/fatbin.mjs is tried on them
// by test/fatbin.test.ts, and tools/cuda/sass.mjs by its own test.
#include "gpu/kernel.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

struct GateArgs {
  float* x;
  int i, j;
};

__device__ __forceinline__ void sound(const GateArgs& a) { a.x[threadIdx.x] *= 2.0f; }

// More values alive than registers a thread has in a block of 1,024.
__device__ __forceinline__ void many(const GateArgs& a) {
  float v[128];
#pragma unroll
  for (int i = 0; i < 128; ++i) v[i] = a.x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 128; ++i) a.x[i * 1024 + threadIdx.x] = v[127 - i] * v[i];
}

// An array whose places are only known at run time: on a stack, without a spill.
__device__ __forceinline__ void indexed(const GateArgs& a) {
  float v[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) v[i] = 0.0f;
#pragma unroll 1
  for (int k = 0; k < a.j; ++k) v[(a.i + k * k) & 15] += a.x[k];
  a.x[threadIdx.x] = v[a.i & 15];
}

__device__ __forceinline__ void sharing(const GateArgs& a) {
  LOMO_SHARED(float, tile, 1024);
  tile[threadIdx.x] = a.x[threadIdx.x];
  __syncthreads();
  a.x[threadIdx.x] = tile[a.i];
}

LOMO_KERNEL(gate_sound, 256, GateArgs, sound)  // 40 registers, 0 bytes
LOMO_KERNEL(gate_spills, 1024, GateArgs, many)  // 255 registers, 0 bytes
LOMO_KERNEL(gate_stack, 256, GateArgs, indexed)  // 255 registers, 0 bytes
LOMO_KERNEL(gate_registers, 256, GateArgs, many)  // 40 registers, 0 bytes
LOMO_KERNEL(gate_shared, 256, GateArgs, sharing)  // 40 registers, 1,024 bytes
LOMO_KERNEL(gate_silent, 256, GateArgs, sound)
#if __CUDA_ARCH__ != 1200
LOMO_KERNEL(gate_architecture, 256, GateArgs, sound)  // 40 registers, 0 bytes
#endif
// Called as a kernel that has to use the tensor cores, and does not.
LOMO_KERNEL(attention_64_bf16, 256, GateArgs, sound)  // 40 registers, 0 bytes

}  // namespace lomo::gpu
#endif
