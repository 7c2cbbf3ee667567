// attention_backward's dk and dv: a block of threads takes keys of one segment and group, 16 a warp, and passes over the rows that see
// them, of all heads. C says how many warps a block has, how many rows it takes at a time, and how many columns of dk and dv.
#pragma once

#include "gpu/attention.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

template <class T, int D, class C> __device__ __forceinline__ void keys_backward(const AttentionArgs& a) {
  constexpr int N = C::rows / 8, W = C::columns / 8, threads = 32 * C::warps, keys = 16 * C::warps, stage = 2 * C::rows * D, slices = D / C::columns;
  LOMO_DYNAMIC_SHARED(T, memory);
  T *const tile_k = memory, *const tile_v = memory + keys * D, *const stages = memory + 2 * keys * D;
  float* const statistics = reinterpret_cast<float*>(stages + 2 * stage);  // of two stages: lse in powers of two [rows], delta [rows]
  Segment segment;
  int first;
  // The first keys of a segment are seen by most rows under a causal mask.
  if (!find_block<true>(a, static_cast<int>(blockIdx.x), keys, segment, first)) return;
  const Place at{a, segment, static_cast<int>(blockIdx.y) / slices};
  const int column = static_cast<int>(blockIdx.y) % slices * C::columns;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  const int last = smaller(first + keys, segment.keys) - 1;
  const T *const q = static_cast<const T*>(a.q), *const dout = static_cast<const T*>(a.dout), *const k = static_cast<const T*>(a.k), *const v = static_cast<const T*>(a.v);

  // Rows that may see a key of this block.
  const int shift = segment.keys - segment.queries, to_query = a.window > 0 ? smaller(segment.queries, last - shift + a.window) : segment.queries;
  const int from = a.causal != 0 ? larger(0, first - shift) * a.per_group : 0, to = to_query * a.per_group;
  const int blocks = to > from ? (to - from + C::rows - 1) / C::rows : 0;
  const auto fetch = [&](int b) {
    T* const tile = stages + b % 2 * stage;
    const int r0 = hidden(from + b * C::rows);
    fill_tile<T, D, C::rows, threads>(tile, to - r0, a.d, a.wide, [&](int r) { return q + at.row(r0 + r); });
    fill_tile<T, D, C::rows, threads>(tile + stage / 2, to - r0, a.d, a.wide, [&](int r) { return dout + at.row(r0 + r); });
    commit_copies();
  };
  // A missing row has infinite lse, hence no weight.
  const auto statistic_of = [&](int b) {
    const int r = from + b * C::rows + thread % C::rows;
    if (thread >= 2 * C::rows) return 0.0f;
    if (r >= to) return thread < C::rows ? INFINITY : 0.0f;
    return thread < C::rows ? a.lse[at.statistic(r)] * log2_e : a.delta[at.statistic(r)];
  };
  const auto keep = [&](int b, float x) {
    if (thread < 2 * C::rows) statistics[b % 2 * 2 * C::rows + thread] = x;
  };
  static_assert(2 * C::rows <= threads);

  const int key = first + warp * 16;
  const bool works = key <= last;
  float dk[1][W][4], dv[1][W][4];
  clear(dk);
  clear(dv);
  if (blocks > 0) {
    fill_tile<T, D, keys, threads>(tile_k, segment.keys - first, a.d, a.wide, [&](int r) { return k + at.key(first + r); });
    fill_tile<T, D, keys, threads>(tile_v, segment.keys - first, a.d, a.wide, [&](int r) { return v + at.key(first + r); });
    fetch(0);
    keep(0, statistic_of(0));
  }
#pragma unroll 1
  for (int b = 0; b < blocks; ++b) {
    wait_copies<0>();
    __syncthreads();  // the stage is there, and nobody reads the other one any more
    float next = 0.0f;
    if (b + 1 < blocks) {
      fetch(b + 1);
      next = statistic_of(b + 1);
    }
    const int r0 = from + b * C::rows, low = at.own(r0), high = at.own(smaller(r0 + C::rows, to) - 1);
    if (works && at.sees_any(low, high, key, 16)) {
      const T *const tile_q = stages + b % 2 * stage, *const tile_do = tile_q + stage / 2;
      const float* const less = statistics + b % 2 * 2 * C::rows;
      float p[1][N][4], dp[1][N][4];
      clear(p);
      multiply_rows<D>(p, tile_k + warp * 16 * D, tile_q);
      apply_sign(a, p);
      const bool whole = at.sees_all(low, high, key, 16);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int own = at.own(r0 + 8 * n + 2 * t + i);
          const float l = less[8 * n + 2 * t + i];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float& x = p[0][n][2 * half + i];
            x = whole || at.sees(own, key + 8 * half + g) ? weight(a, x, l) : 0.0f;
          }
        }
      multiply_columns<D>(dv, p, tile_do + column);
      clear(dp);
      multiply_rows<D>(dp, tile_v + warp * 16 * D, tile_do);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) p[0][n][i] *= dp[0][n][i] - less[C::rows + 8 * n + 2 * t + i % 2];
      multiply_columns<D>(dk, p, tile_q + column);
    }
    if (b + 1 < blocks) keep(b + 1, next);
  }

  if (!works) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int j = key + 8 * half + g;
    if (j > last) continue;
    T *const to_dk = static_cast<T*>(a.dk) + at.key(j), *const to_dv = static_cast<T*>(a.dv) + at.key(j);
#pragma unroll
    for (int n = 0; n < W; ++n) {
      put_pair(to_dk, column + 8 * n + 2 * t, a.d, a.wide, dk[0][n][2 * half] * a.scale, dk[0][n][2 * half + 1] * a.scale);
      put_pair(to_dv, column + 8 * n + 2 * t, a.d, a.wide, dv[0][n][2 * half], dv[0][n][2 * half + 1]);
    }
  }
}

}  // namespace lomo::gpu
#endif
