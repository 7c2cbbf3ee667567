// attention_backward's dq: a block of threads takes rows of one segment and group, 16 a warp, and passes over the keys they see.
// C says how many warps a block has and how many keys it takes at a time.
#pragma once

#include "gpu/attention.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

template <class T, int D, class C> __device__ __forceinline__ void rows_backward(const AttentionArgs& a) {
  constexpr int N = C::keys / 8, threads = 32 * C::warps, rows = 16 * C::warps, stage = 2 * C::keys * D;
  LOMO_DYNAMIC_SHARED(T, memory);
  T *const tile_q = memory, *const tile_do = memory + rows * D, *const stages = memory + 2 * rows * D;
  if (blockIdx.x == 0 && blockIdx.y == 0) report_bad_segments(a);
  Segment segment;
  int first;
  if (!find_block<false>(a, static_cast<int>(gridDim.x - 1 - blockIdx.x), rows, segment, first)) return;
  const Place at{a, segment, static_cast<int>(blockIdx.y)};
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const int last = smaller(first + rows, at.rows()) - 1;
  const T *const q = static_cast<const T*>(a.q), *const dout = static_cast<const T*>(a.dout), *const k = static_cast<const T*>(a.k), *const v = static_cast<const T*>(a.v);

  const int from = a.window > 0 ? larger(0, at.own(first) - a.window + 1) : 0, to = a.causal != 0 ? smaller(segment.keys, at.own(last) + 1) : segment.keys;
  const int blocks = to > from ? (to - from + C::keys - 1) / C::keys : 0;
  const auto fetch = [&](int b) {
    T* const tile = stages + b % 2 * stage;
    const int j = hidden(from + b * C::keys);
    fill_tile<T, D, C::keys, threads>(tile, segment.keys - j, a.d, a.wide, [&](int r) { return k + at.key(j + r); });
    fill_tile<T, D, C::keys, threads>(tile + stage / 2, segment.keys - j, a.d, a.wide, [&](int r) { return v + at.key(j + r); });
    commit_copies();
  };

  const int row = first + warp * 16, low = at.own(row), high = at.own(smaller(row + 15, last));
  const bool works = row <= last;
  float less[2], inner[2], dq[1][D / 8][4];
  clear(dq);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + 8 * half + g;
    less[half] = r <= last ? a.lse[at.statistic(r)] * log2_e : INFINITY;
    inner[half] = r <= last ? a.delta[at.statistic(r)] : 0.0f;
  }
  if (blocks > 0) {
    fill_tile<T, D, rows, threads>(tile_q, at.rows() - first, a.d, a.wide, [&](int r) { return q + at.row(first + r); });
    fill_tile<T, D, rows, threads>(tile_do, at.rows() - first, a.d, a.wide, [&](int r) { return dout + at.row(first + r); });
    fetch(0);
  }
#pragma unroll 1
  for (int b = 0; b < blocks; ++b) {
    wait_copies<0>();
    __syncthreads();  // the stage is there, and nobody reads the other one any more
    if (b + 1 < blocks) fetch(b + 1);
    const int j = from + b * C::keys;
    if (!works || !at.sees_any(low, high, j, C::keys)) continue;
    const T* const tile = stages + b % 2 * stage;
    float p[1][N][4], dp[1][N][4];
    clear(p);
    multiply_rows<D>(p, tile_q + warp * 16 * D, tile);
    apply_sign(a, p);
    const bool whole = j + C::keys <= segment.keys && at.sees_all(low, high, j, C::keys);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int own = at.own(row + 8 * half + g);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int key = j + 8 * n + 2 * t + i;
          float& x = p[0][n][2 * half + i];
          x = whole || (key < segment.keys && at.sees(own, key)) ? weight(a, x, less[half]) : 0.0f;
        }
    }
    clear(dp);
    multiply_rows<D>(dp, tile_do + warp * 16 * D, tile + stage / 2);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) p[0][n][i] *= dp[0][n][i] - inner[i / 2];
    multiply_columns<D>(dq, p, tile);
  }

  if (!works) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + 8 * half + g;
    if (r > last) continue;
    T* const to_row = static_cast<T*>(a.dq) + at.row(r);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) put_pair(to_row, 8 * n + 2 * t, a.d, a.wide, dq[0][n][2 * half] * a.scale, dq[0][n][2 * half + 1] * a.scale);
  }
}

}  // namespace lomo::gpu
#endif
