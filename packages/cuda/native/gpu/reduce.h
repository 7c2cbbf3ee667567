// Sums, maxima and votes of a block, in one order whatever the schedule. Every thread of the block calls them, every one gets the result.
#pragma once

#include "gpu/kernel.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

template <class T, class F> __device__ __forceinline__ T warp_reduce(T v, F f) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) v = f(v, __shfl_xor_sync(whole_warp, v, bits));
  return v;
}

// Lanes by a tree, then warps by a tree. `idle` is what missing warps count as. Blocks are whole warps.
template <class T, class F> __device__ __forceinline__ T block_reduce(T v, T idle, F f) {
  LOMO_SHARED(T, parts, 32);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  v = warp_reduce(v, f);
  if (lane == 0) parts[warp] = v;
  __syncthreads();
  v = warp_reduce(lane < blockDim.x / 32 ? parts[lane] : idle, f);
  __syncthreads();  // before the next call writes `parts`
  return v;
}

template <class T> __device__ __forceinline__ T block_sum(T v) {
  return block_reduce(v, T(0), [](T a, T b) { return a + b; });
}
__device__ __forceinline__ float block_max(float v) {
  return block_reduce(v, -INFINITY, [](float a, float b) { return a > b || a != a ? a : b; });
}
__device__ __forceinline__ bool block_any(bool v) {
  return block_reduce(v ? 1 : 0, 0, [](int a, int b) { return a | b; }) != 0;
}

}  // namespace lomo::gpu
#endif
