// The words kernels are written in. A .cu file is compiled three times: by nvcc for the GPU (LOMO_DEVICE), for the host on fibers
// (LOMO_DEVICE and LOMO_FIBER, test only), and without either as the addon's own code: checks, sizes, launches and the kernel table.
#pragma once

#include <cstdint>

#if defined(LOMO_DEVICE)
#if defined(LOMO_FIBER)
#include "fiber/cuda.h"
#else

// Kernels take one struct by value; it may hold 4,064 bytes.
#define LOMO_KERNEL(name, threads, Args, ...) \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args args) { __VA_ARGS__(args); }
#define LOMO_SHARED(type, name, count) __shared__ type name[count]
#define LOMO_DYNAMIC_SHARED(type, name)                \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  type* const name = reinterpret_cast<type*>(name##_bytes)

namespace lomo::gpu {

__device__ __forceinline__ unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// cp.async of 16 bytes, of which the first `used` are read and the rest is zero.
__device__ __forceinline__ void copy16_async(void* to, const void* from, unsigned used = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(used) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups_left> __device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory"); }

// ldmatrix: four 8 x 8 matrices of 16-bit elements; lane 8 i + r names row r of matrix i.
template <bool transposed> __device__ __forceinline__ void load_matrices(unsigned (&r)[4], const void* row) {
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// 1 / x to a unit or so.
__device__ __forceinline__ float reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// d += A B on the tensor cores: m16n8k16 for 16-bit operands, m16n8k8 for tf32.
__device__ __forceinline__ void multiply_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void multiply_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void multiply_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace lomo::gpu
#endif

namespace lomo::gpu {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;

constexpr unsigned whole_warp = 0xffffffffu;

// First element of this thread and the stride of the whole grid, for sweeps of any length.
__device__ __forceinline__ i64 sweep_start() { return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ i64 sweep_stride() { return static_cast<i64>(gridDim.x) * blockDim.x; }

}  // namespace lomo::gpu
#else
// The addon's own compilation: the kernel is a name; its arguments' size is checked where it is launched.
#define LOMO_KERNEL(name, threads, Args, ...)
#endif
