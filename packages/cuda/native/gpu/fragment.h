// Products of tiles with results in the registers of a warp, laid out as mma.sync leaves them: of a 16 x 8 fragment, lane 4 g + t holds
// rows g and g + 8, columns 2 t and 2 t + 1. 16-bit operands go to the tensor cores (m16n8k16, f32 sums). f32 operands are multiplied
// by plain FMA with the same layout: tf32 would keep 11 of their 24 bits, and splitting them in three costs more than it is worth here.
#pragma once

#include "gpu/tile.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

__device__ __forceinline__ void multiply(bf16*, float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { multiply_bf16(d, a, b); }
__device__ __forceinline__ void multiply(f16*, float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { multiply_f16(d, a, b); }

template <int M, int N> __device__ __forceinline__ void clear(float (&s)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[m][n][i] = 0.0f;
}

// s += A B^T: rows 16 m .. behind A times rows 8 n .. behind B, summed over the D columns of their tiles; A and B are whole eights of rows
// into their tiles.
template <int D, int M, int N, class T> __device__ __forceinline__ void multiply_rows(float (&s)[M][N][4], const T* a, const T* b) {
  using L = Tile<T, D>;
  const int lane = hidden(static_cast<int>(threadIdx.x)) % 32;
  if constexpr (sizeof(T) == 2) {
    static_assert(N % 2 == 0);
    const int at_a = L::place(lane % 16, lane / 16), at_b = L::place(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      u32 x[M][4];
#pragma unroll
      for (int m = 0; m < M; ++m) load_matrices<false>(x[m], a, L::move(at_a, 2 * k) + 16 * m * D);
#pragma unroll
      for (int n = 0; n < N; n += 2) {
        u32 y[4];
        load_matrices<false>(y, b, L::move(at_b, 2 * k) + 8 * n * D);
        const u32 left[2] = {y[0], y[1]}, right[2] = {y[2], y[3]};
#pragma unroll
        for (int m = 0; m < M; ++m) {
          multiply(static_cast<T*>(nullptr), s[m][n], x[m], left);
          multiply(static_cast<T*>(nullptr), s[m][n + 1], x[m], right);
        }
      }
    }
  } else {
    const int g = lane / 4, t = lane % 4;
    const int at_a = L::place(g, 0), at_b[2] = {L::place(2 * t, 0), L::place(2 * t + 1, 0)};
#pragma unroll 2
    for (int c = 0; c < L::chunks; ++c) {
      float4 x[M][2];
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) x[m][half] = *reinterpret_cast<const float4*>(a + L::move(at_a, c) + (16 * m + 8 * half) * D);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          const float4 y = *reinterpret_cast<const float4*>(b + L::move(at_b[column], c) + 8 * n * D);
#pragma unroll
          for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              float& to = s[m][n][2 * half + column];
              const float4& v = x[m][half];
              to = fmaf(v.w, y.w, fmaf(v.z, y.z, fmaf(v.y, y.y, fmaf(v.x, y.x, to))));
            }
        }
    }
  }
}

// o += P B: P [16 M, 8 K] in fragments, rounded to T, times rows 0 .. 8 K of tile B, its columns 0 .. 8 N; B may be 64 columns of a tile
// further than its first.
template <int D, int M, int K, int N, class T> __device__ __forceinline__ void multiply_columns(float (&o)[M][N][4], const float (&p)[M][K][4], const T* b) {
  using L = Tile<T, D>;
  const int lane = hidden(static_cast<int>(threadIdx.x)) % 32;
  if constexpr (sizeof(T) == 2) {
    static_assert(K % 2 == 0 && N % 2 == 0);
    const int at = L::place(lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < K / 2; ++k) {
      // Two neighbouring fragments of results are one of operands.
      u32 x[M][4];
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) x[m][i] = pair(static_cast<T*>(nullptr), p[m][2 * k + i / 2][i % 2 * 2], p[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
      for (int n = 0; n < N; n += 2) {
        u32 y[4];
        load_matrices<true>(y, b, L::move(at, n) + 16 * k * D);
        const u32 left[2] = {y[0], y[1]}, right[2] = {y[2], y[3]};
#pragma unroll
        for (int m = 0; m < M; ++m) {
          multiply(static_cast<T*>(nullptr), o[m][n], x[m], left);
          multiply(static_cast<T*>(nullptr), o[m][n + 1], x[m], right);
        }
      }
    }
  } else {
    const int t = lane % 4, at = t / 2 * L::per + t % 2 * 2;
#pragma unroll
    for (int k = 0; k < 8 * K; ++k) {
      // Four lanes share a row of P; the one that holds column k hands it round.
      float x[M][2];
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) x[m][half] = __shfl_sync(whole_warp, p[m][k / 8][2 * half + k % 2], (lane & 28) | (k % 8 / 2));
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const float2 y = *reinterpret_cast<const float2*>(b + k * D + (at ^ ((2 * n ^ k) & 7) * L::per) + (2 * n & ~7) * L::per);
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            o[m][n][2 * half] = fmaf(x[m][half], y.x, o[m][n][2 * half]);
            o[m][n][2 * half + 1] = fmaf(x[m][half], y.y, o[m][n][2 * half + 1]);
          }
      }
    }
  }
}

// Two neighbouring columns of a fragment's row; `wide`: their place is aligned and d is even.
template <class T> __device__ __forceinline__ void put_pair(T* row, int column, int d, bool wide, float low, float high) {
  if (wide) {
    if (column >= d) return;
    if constexpr (sizeof(T) == 2) *reinterpret_cast<u32*>(row + column) = pair(row, low, high);
    else *reinterpret_cast<float2*>(row + column) = float2{low, high};
  } else {
    if (column < d) put(row + column, low);
    if (column + 1 < d) put(row + column + 1, high);
  }
}

}  // namespace lomo::gpu
#endif
