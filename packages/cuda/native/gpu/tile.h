// Tiles of rows in shared memory, filled from global memory by cp.async. A row is D elements in chunks of 16 bytes; chunk c of row r lies
// at place c ^ (r mod 8), so that one chunk column of eight neighbouring rows fills all 32 banks once: ldmatrix and 16-byte reads of eight
// rows meet no conflict, nor does the fill, whose threads run along rows.
#pragma once

#include "gpu/storage.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

template <class T, int D> struct Tile {
  static constexpr int per = 16 / static_cast<int>(sizeof(T)), chunks = D / per;
  static_assert(chunks >= 8 && D % 16 == 0, "rows of at least 128 bytes");
  // Offset in elements of chunk `chunk` of a row.
  static __device__ __forceinline__ int place(int row, int chunk) { return row * D + (chunk ^ (row & 7)) * per; }
  // The same from what a lane computes once, place(row, bits), for chunk + bits, where `chunk` has none of the bits that `bits` may have,
  // and for rows that multiples of 8 are added to by the caller: one instruction.
  static __device__ __forceinline__ int move(int place, int chunk) { return (place ^ (chunk & 7) * per) + (chunk & ~7) * per; }
};

// Addresses in shared memory are 32 bits: kept as a base and an offset, or every one would cost two registers.
#if defined(LOMO_FIBER)
template <bool transposed, class T> inline void load_matrices(u32 (&r)[4], const T* tile, int offset) { load_matrices<transposed>(r, static_cast<const void*>(tile + offset)); }
template <class T> inline void copy16_async(T* tile, int offset, const T* from, unsigned used) { copy16_async(static_cast<void*>(tile + offset), from, used); }
inline int hidden(int x) { return x; }
#else
template <bool transposed, class T> __device__ __forceinline__ void load_matrices(u32 (&r)[4], const T* tile, int offset) {
  const u32 at = shared_address(tile) + static_cast<u32>(offset) * static_cast<u32>(sizeof(T));
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
template <class T> __device__ __forceinline__ void copy16_async(T* tile, int offset, const T* from, unsigned used) {
  const u32 at = shared_address(tile) + static_cast<u32>(offset) * static_cast<u32>(sizeof(T));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(used) : "memory");
}
// The same number, of which the compiler knows nothing: it would keep a register for every address of a loop otherwise.
__device__ __forceinline__ int hidden(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
#endif

// Sixteen bytes of elements that need not be aligned; `left` of them are there, the rest is zero.
__device__ __forceinline__ uint4 gather(const float* from, int left) {
  u32 w[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) w[k] = k < left ? __float_as_uint(from[k]) : 0;
  return uint4{w[0], w[1], w[2], w[3]};
}
template <class T> __device__ __forceinline__ uint4 gather(const T* from, int left) {
  u32 w[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) w[k] = (2 * k < left ? from[2 * k].bits : 0u) | (2 * k + 1 < left ? static_cast<u32>(from[2 * k + 1].bits) << 16 : 0u);
  return uint4{w[0], w[1], w[2], w[3]};
}

// Rows 0 .. rows of a tile by all `threads` of the block; row(r) is where row r of `count` starts, its first d elements are there. What
// is missing becomes zero. `wide`: rows are 16-byte aligned and d fills whole chunks; the copies are then asynchronous and the caller commits.
template <class T, int D, int rows, int threads, class F> __device__ __forceinline__ void fill_tile(T* tile, int count, int d, bool wide, F row) {
  using L = Tile<T, D>;
  constexpr int steps = rows * L::chunks / threads, each = threads / L::chunks;  // rows a step
  static_assert(steps * threads == rows * L::chunks && each * L::chunks == threads && (each & (each - 1)) == 0);
  const int thread = hidden(static_cast<int>(threadIdx.x)), first = thread / L::chunks, chunk = thread % L::chunks;
  const int place = L::place(first, chunk), left = d - chunk * L::per;
  if (wide) {
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      const int r = first + i * each;
      const bool there = r < count && left > 0;
      copy16_async(tile, (place ^ (i * each & 7) * L::per) + i * each * D, row(there ? r : 0) + (there ? chunk * L::per : 0), there ? 16u : 0u);
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < steps; ++i) {
      const int r = first + i * each;
      uint4 words{0, 0, 0, 0};
      if (r < count && left > 0) words = gather(row(r) + chunk * L::per, left);
      *reinterpret_cast<uint4*>(tile + L::place(r, chunk)) = words;
    }
  }
}

}  // namespace lomo::gpu
#endif
