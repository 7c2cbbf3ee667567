// attention_backward: delta = sum of do o over a row first; then dq by blocks of rows, and dk and dv by blocks of keys that pass over all
// rows of their group, queries ascending, heads ascending within a query. Weights are made again from lse. No atomics; every sum has one order.
//
//   kernel              rows  keys  columns  threads  shared memory (dynamic)
//   dq, 64, bf16          64    64       64      128   48 KiB
//   dq, 128, bf16         64    64      128      128   96 KiB
//   dq, 256, bf16         64    16      256      128   96 KiB
//   dq, 64, f32           64    32       64      128   64 KiB
//   dq, 128, f32          32    32      128       64   96 KiB
//   dq, 256, f32          32     8      256       64   96 KiB
//   keys, 64, bf16        32    64       64      128   32.5 KiB
//   keys, 128, bf16       32    64      128      128   64.5 KiB
//   keys, 256, bf16       16    64      128      128   96.25 KiB
//   keys, 64, f32         16    64       64      128   48.25 KiB
//   keys, 128, f32        32    32      128       64   96.5 KiB
//   keys, 256, f32         8    32      128       64   96.1 KiB
// Of dk and dv a block of `keys` holds `columns` in registers; where head_dim has more, two blocks share a key block.
// Budget: 255 registers, 0 bytes of shared memory.
#include "gpu/attention.h"

namespace lomo::attention_backward {

struct Half;  // any 16-bit dtype
template <class T, int D> struct CutRows;
template <int D> struct CutRows<float, D> {
  static constexpr int warps = D == 64 ? 4 : 2, keys = D == 256 ? 8 : 32, bytes = 4;
};
template <int D> struct CutRows<Half, D> {
  static constexpr int warps = 4, keys = D == 256 ? 16 : 64, bytes = 2;
};
template <class T, int D> struct CutKeys;
template <int D> struct CutKeys<float, D> {
  static constexpr int warps = D == 64 ? 4 : 2, rows = D == 256 ? 8 : D == 128 ? 32 : 16, columns = D == 256 ? 128 : D, bytes = 4;
};
template <int D> struct CutKeys<Half, D> {
  static constexpr int warps = 4, rows = D == 256 ? 16 : 32, columns = D == 256 ? 128 : D, bytes = 2;
};
// q and do, and two stages of k and v.
template <class C> constexpr int rows_shared(int dim) { return (2 * 16 * C::warps + 4 * C::keys) * dim * C::bytes; }
// k and v, and two stages of q, do, lse and delta.
template <class C> constexpr int keys_shared(int dim) { return (2 * 16 * C::warps + 4 * C::rows) * dim * C::bytes + 4 * C::rows * 4; }
constexpr int most = 99 * 1024;
static_assert(rows_shared<CutRows<Half, 128>>(128) <= most && rows_shared<CutRows<Half, 256>>(256) <= most);
static_assert(rows_shared<CutRows<float, 128>>(128) <= most && rows_shared<CutRows<float, 256>>(256) <= most);
static_assert(keys_shared<CutKeys<Half, 128>>(128) <= most && keys_shared<CutKeys<Half, 256>>(256) <= most);
static_assert(keys_shared<CutKeys<float, 128>>(128) <= most && keys_shared<CutKeys<float, 256>>(256) <= most);

#if defined(LOMO_DEVICE)
using namespace gpu;

// Eight lanes a row.
template <class T> __device__ __forceinline__ void delta(const AttentionArgs& a) {
  const T *const o = static_cast<const T*>(a.o), *const dout = static_cast<const T*>(a.dout);
  const int rows = a.tokens * a.heads, row = static_cast<int>(sweep_start() / 8);
  const int lane = static_cast<int>(threadIdx.x) % 8;
  float sum = 0.0f;
  if (row < rows) {
    const i64 at = static_cast<i64>(row) * a.d;
    for (int c = 8 * lane; c < a.d; c += 64) {
      if (a.wide) {
        float x[8], y[8];
        load8(x, o + at + c);
        load8(y, dout + at + c);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum = fmaf(x[i], y[i], sum);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
          if (c + i < a.d) sum = fmaf(get(o + at + c + i), get(dout + at + c + i), sum);
      }
    }
  }
#pragma unroll
  for (int bits = 4; bits > 0; bits /= 2) sum += __shfl_xor_sync(whole_warp, sum, bits);
  if (row < rows && lane == 0) a.delta[static_cast<i64>(row % a.heads) * a.tokens + row / a.heads] = sum;
}

// Scores to weights: exp(scale s - lse), where less = lse in powers of two.
__device__ __forceinline__ float weight(const AttentionArgs& a, float s, float less) { return power_of_two(fmaf(s, a.steepness, -less)); }

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
LOMO_KERNEL(attention_delta_f32, 256, AttentionArgs, delta<float>)
LOMO_KERNEL(attention_delta_bf16, 256, AttentionArgs, delta<bf16>)
LOMO_KERNEL(attention_dq_64_f32, 128, AttentionArgs, rows_backward<float, 64, CutRows<float, 64>>)
LOMO_KERNEL(attention_dq_128_f32, 64, AttentionArgs, rows_backward<float, 128, CutRows<float, 128>>)
LOMO_KERNEL(attention_dq_256_f32, 64, AttentionArgs, rows_backward<float, 256, CutRows<float, 256>>)
LOMO_KERNEL(attention_dq_64_bf16, 128, AttentionArgs, rows_backward<bf16, 64, CutRows<Half, 64>>)
LOMO_KERNEL(attention_dq_128_bf16, 128, AttentionArgs, rows_backward<bf16, 128, CutRows<Half, 128>>)
LOMO_KERNEL(attention_dq_256_bf16, 128, AttentionArgs, rows_backward<bf16, 256, CutRows<Half, 256>>)
LOMO_KERNEL(attention_keys_64_f32, 128, AttentionArgs, keys_backward<float, 64, CutKeys<float, 64>>)
LOMO_KERNEL(attention_keys_128_f32, 64, AttentionArgs, keys_backward<float, 128, CutKeys<float, 128>>)
LOMO_KERNEL(attention_keys_256_f32, 64, AttentionArgs, keys_backward<float, 256, CutKeys<float, 256>>)
LOMO_KERNEL(attention_keys_64_bf16, 128, AttentionArgs, keys_backward<bf16, 64, CutKeys<Half, 64>>)
LOMO_KERNEL(attention_keys_128_bf16, 128, AttentionArgs, keys_backward<bf16, 128, CutKeys<Half, 128>>)
LOMO_KERNEL(attention_keys_256_bf16, 128, AttentionArgs, keys_backward<bf16, 256, CutKeys<Half, 256>>)
#endif

}  // namespace lomo::attention_backward

#if !defined(LOMO_DEVICE)
#include "addon/attention.h"

namespace lomo {
namespace {

using namespace attention_backward;

template <int D, class Rows, class Keys> void launch(const Call& call, const gpu::AttentionArgs& args) {
  const std::string dim = std::to_string(D);
  const std::int64_t rows = ceil_div(std::int64_t{args.tokens} * args.per_group, 16 * Rows::warps) + args.segments + 2, keys = ceil_div(args.keys, 16 * Keys::warps) + args.segments + 2;
  start(call, KernelName(("attention_dq_" + dim).c_str(), call.in(0).dtype), {rows, args.groups, 32 * Rows::warps, rows_shared<Rows>(D)}, &args);
  start(call, KernelName(("attention_keys_" + dim).c_str(), call.in(0).dtype), {keys, std::int64_t{args.groups} * (D / Keys::columns), 32 * Keys::warps, keys_shared<Keys>(D)}, &args);
}

template <int D> void launch(const Call& call, const gpu::AttentionArgs& args) {
  if (call.in(0).dtype == DType::f32) launch<D, CutRows<float, D>, CutKeys<float, D>>(call, args);
  else launch<D, CutRows<Half, D>, CutKeys<Half, D>>(call, args);
}

void run(const Call& call) {
  const char* const op = "attention_backward";
  gpu::AttentionArgs args = attention_args(op, call);
  const Operand &o = call.in(3), &lse = call.in(4), &dout = call.in(5), &dq = call.out(0), &dk = call.out(1), &dv = call.out(2);
  same_size(op, "o", o.count(), call.in(0).count());
  same_size(op, "lse", lse.count(), std::int64_t{args.tokens} * args.heads);
  same_size(op, "do", dout.count(), call.in(0).count());
  same_size(op, "dq", dq.count(), call.in(0).count());
  same_size(op, "dk", dk.count(), call.in(1).count());
  same_size(op, "dv", dv.count(), call.in(1).count());
  args.o = o.data, args.lse = lse.as<float>(), args.dout = dout.data, args.dq = dq.data, args.dk = dk.data, args.dv = dv.data;
  args.delta = static_cast<float*>(call.workspace);
  args.wide = args.wide && args.d % 8 == 0 && wide({o.data, dout.data, dq.data, dk.data, dv.data});
  start(call, KernelName("attention_delta", call.in(0).dtype), {ceil_div(lse.count(), 32)}, &args);
  if (args.d <= 64) launch<64>(call, args);
  else if (args.d <= 128) launch<128>(call, args);
  else launch<256>(call, args);
}

std::size_t workspace(const Call& call) { return static_cast<std::size_t>(call.in(4).count()) * sizeof(float); }

}  // namespace

extern const Kernel kernels_attention_backward[] = {
    {"attention_backward", "scale causal window max_q max_k", accepts<"rrrrfrii||rrr">, run, workspace},
    {},
};

}  // namespace lomo
#endif
