// What attention's kernels share: the call's arguments, how segments divide into blocks, which query sees which key.
// A row is one query of one head. The heads of a key-value group lie side by side, so a segment's rows of a group are numbered
// query * per_group + head; a block of rows shares the keys it reads, and its bits depend on nothing outside its segment and group.
#pragma once

#include "gpu/fragment.h"

namespace lomo::gpu {

struct AttentionArgs {
  const void *q, *k, *v;    // [tokens, heads, d], [keys, groups, d] twice
  const int *cu_q, *cu_k;   // [segments + 1]
  void* o;                  // out of the forward pass, in of the backward pass
  float* lse;               // [heads, tokens], likewise
  const void* dout;
  void *dq, *dk, *dv;
  float* delta;             // [heads, tokens]: sum of do o over a row
  int* fault;
  int tokens, keys, heads, groups, d, segments, per_group;
  unsigned inverse;         // floor(2^32 / per_group) + 1
  int causal, window, max_q, max_k;
  // softmax(scale s) in powers of two: sign * s, times a positive steepness, so that masked scores may be -inf.
  float scale, sign, steepness;
  bool wide;
};

constexpr int fault_bad_segments = 4;

#if defined(LOMO_DEVICE)

constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

#if defined(LOMO_FIBER)
inline float power_of_two(float x) { return std::exp2(x); }
#else
// Right to 2^-22, relative; 0 below 2^-126.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

struct Segment {
  int q, queries, k, keys;  // first rows and lengths
};

__device__ __forceinline__ int smaller(int x, int y) { return x < y ? x : y; }
__device__ __forceinline__ int larger(int x, int y) { return x > y ? x : y; }
__device__ __forceinline__ int bounded(int x, int most) { return smaller(larger(x, 0), most); }

// Entry 0 stands for the rows before all segments and entry segments + 1 for those behind, with nothing on the other side: what no
// segment holds is written as a row that sees nothing. Numbers that make no sense are cut to what lies in the operands.
template <bool by_keys> __device__ __forceinline__ Segment segment_of(const AttentionArgs& a, int entry) {
  if (entry > a.segments + 1) return {0, 0, 0, 0};
  const bool inside = entry > 0 && entry <= a.segments;
  const int q = entry == 0 ? 0 : bounded(a.cu_q[entry - 1], a.tokens), k = entry == 0 ? 0 : bounded(a.cu_k[entry - 1], a.keys);
  const int q_end = entry > a.segments ? a.tokens : bounded(a.cu_q[entry], a.tokens), k_end = entry > a.segments ? a.keys : bounded(a.cu_k[entry], a.keys);
  const int queries = q_end > q ? q_end - q : 0, keys = k_end > k ? k_end - k : 0;
  return {q, inside || !by_keys ? queries : 0, k, inside || by_keys ? keys : 0};
}

// The segment that block `task` lies in, and the block's first row (or key) there; all segments' blocks are numbered one after another.
// False behind the last. Whole warps call it, each finds the same.
template <bool by_keys> __device__ __forceinline__ bool find_block(const AttentionArgs& a, int task, int size, Segment& found, int& first) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int passed = 0;
  for (int base = 0; base < a.segments + 2; base += 32) {
    const Segment mine = segment_of<by_keys>(a, base + lane);
    const int blocks = ((by_keys ? mine.keys : mine.queries * a.per_group) + size - 1) / size;
    int sum = blocks;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
      const int other = __shfl_up_sync(whole_warp, sum, by);
      if (lane >= by) sum += other;
    }
    const u32 beyond = __ballot_sync(whole_warp, passed + sum > task);
    if (beyond != 0) {
      const int at = 31 - __clz(static_cast<int>(beyond & (0u - beyond)));
      found = {__shfl_sync(whole_warp, mine.q, at), __shfl_sync(whole_warp, mine.queries, at), __shfl_sync(whole_warp, mine.k, at), __shfl_sync(whole_warp, mine.keys, at)};
      first = (task - passed - __shfl_sync(whole_warp, sum - blocks, at)) * size;
      return true;
    }
    passed += __shfl_sync(whole_warp, sum, 31);
  }
  return false;
}

// Once a launch: says which segment lies outside the operands or is longer than max_q and max_k say.
__device__ __forceinline__ void report_bad_segments(const AttentionArgs& a) {
  for (int s = static_cast<int>(threadIdx.x); s < a.segments; s += static_cast<int>(blockDim.x)) {
    const int q = a.cu_q[s], q_end = a.cu_q[s + 1], k = a.cu_k[s], k_end = a.cu_k[s + 1];
    const bool good = q >= 0 && q_end >= q && q_end <= a.tokens && q_end - q <= a.max_q && k >= 0 && k_end >= k && k_end <= a.keys && k_end - k <= a.max_k;
    if (good || atomicCAS(a.fault, 0, fault_bad_segments) != 0) continue;
    a.fault[1] = s, a.fault[2] = q, a.fault[3] = q_end, a.fault[4] = k, a.fault[5] = k_end, a.fault[6] = a.max_q, a.fault[7] = a.max_k;
  }
}

__device__ __forceinline__ int query_of(const AttentionArgs& a, int row) {
  return a.per_group == 1 ? row : static_cast<int>(__umulhi(static_cast<u32>(row), a.inverse));
}

// Where rows and keys of a segment and group lie.
struct Place {
  const AttentionArgs& a;
  Segment segment;
  int group;

  __device__ __forceinline__ int rows() const { return segment.queries * a.per_group; }
  // In [tokens, heads, d].
  __device__ __forceinline__ i64 row(int r) const {
    return (static_cast<i64>(segment.q) * a.heads + group * a.per_group + r + query_of(a, r) * (a.heads - a.per_group)) * a.d;
  }
  // In [heads, tokens].
  __device__ __forceinline__ i64 statistic(int r) const {
    const int query = query_of(a, r), head = group * a.per_group + r - query * a.per_group;
    return static_cast<i64>(head) * a.tokens + segment.q + query;
  }
  // In [keys, groups, d].
  __device__ __forceinline__ i64 key(int j) const { return (static_cast<i64>(segment.k + j) * a.groups + group) * a.d; }

  // The key that stands beside row r: the last it sees when causal.
  __device__ __forceinline__ int own(int r) const { return query_of(a, r) + segment.keys - segment.queries; }
  __device__ __forceinline__ bool sees(int own, int j) const { return (a.causal == 0 || j <= own) && (a.window == 0 || own - j < a.window); }
  // For rows from one that stands beside key `low` to one beside `high`, and keys j .. j + n: does anyone see any, everyone all?
  __device__ __forceinline__ bool sees_any(int low, int high, int j, int n) const { return (a.causal == 0 || j <= high) && (a.window == 0 || low - (j + n - 1) < a.window); }
  __device__ __forceinline__ bool sees_all(int low, int high, int j, int n) const { return (a.causal == 0 || j + n - 1 <= low) && (a.window == 0 || high - j < a.window); }
};

// Scores become what the softmax is taken of; nothing to do for a positive scale.
template <int M, int N> __device__ __forceinline__ void apply_sign(const AttentionArgs& a, float (&s)[M][N][4]) {
  if (a.sign == 1.0f) return;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[m][n][i] *= a.sign;
}

// A score's weight again: exp(scale s - lse), where less = lse in powers of two.
__device__ __forceinline__ float weight(const AttentionArgs& a, float s, float less) { return power_of_two(fmaf(s, a.steepness, -less)); }

#endif
}  // namespace lomo::gpu
