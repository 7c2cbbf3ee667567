// attention: flash attention on the tensor cores over packed segments, with a running maximum and sum; scores never leave the registers.
// A block of threads takes rows (gpu/attention.h) of one segment and group, 16 or 32 a warp, and passes over its keys; the next block of
// keys and values is copied while one is computed. No atomics; every sum has one order.
//
//   kernel         rows  keys at a time  threads  shared memory (dynamic)
//   64,  bf16       128              64      128   48 KiB
//   128, bf16       128              32      128   64 KiB
//   256, bf16        64              32      128   96 KiB
//   64,  f32         64              32      128   48 KiB
//   128, f32         64              32      128   96 KiB
//   256, f32         32              16       64   96 KiB
// head_dim is filled up with zeros to the next of the three. sm_86 lends a block 99 KiB.
#include "gpu/attention.h"

namespace lomo::attention {

template <class T, int D> struct Cut;
template <int D> struct Cut<float, D> {
  static constexpr int warps = D == 256 ? 2 : 4, fragments = 1, keys = D == 256 ? 16 : 32, bytes = 4;
};
struct Half;  // any 16-bit dtype
template <int D> struct Cut<Half, D> {
  static constexpr int warps = 4, fragments = D == 256 ? 1 : 2, keys = D == 64 ? 64 : 32, bytes = 2;
};
template <class C> constexpr int rows_of = 16 * C::fragments * C::warps;
// Queries, and two stages of keys and values.
template <class C> constexpr int shared_of(int dim) { return (rows_of<C> + 4 * C::keys) * dim * C::bytes; }
static_assert(shared_of<Cut<Half, 128>>(128) <= 99 * 1024 && shared_of<Cut<Half, 256>>(256) <= 99 * 1024);
static_assert(shared_of<Cut<float, 128>>(128) <= 99 * 1024 && shared_of<Cut<float, 256>>(256) <= 99 * 1024);

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class T, int D, class C> __device__ __forceinline__ void forward(const AttentionArgs& a) {
  constexpr int M = C::fragments, N = C::keys / 8, threads = 32 * C::warps, rows = rows_of<C>, stage = 2 * C::keys * D;
  LOMO_DYNAMIC_SHARED(T, memory);
  T *const tile_q = memory, *const stages = memory + rows * D;
  if (blockIdx.x == 0 && blockIdx.y == 0) report_bad_segments(a);
  Segment segment;
  int first;
  // The last blocks of a segment see most keys under a causal mask: they start first.
  if (!find_block<false>(a, static_cast<int>(gridDim.x - 1 - blockIdx.x), rows, segment, first)) return;
  const Place at{a, segment, static_cast<int>(blockIdx.y)};
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const int last = smaller(first + rows, at.rows()) - 1;
  const T *const q = static_cast<const T*>(a.q), *const k = static_cast<const T*>(a.k), *const v = static_cast<const T*>(a.v);

  const int from = a.window > 0 ? larger(0, at.own(first) - a.window + 1) : 0, to = a.causal != 0 ? smaller(segment.keys, at.own(last) + 1) : segment.keys;
  const int blocks = to > from ? (to - from + C::keys - 1) / C::keys : 0;
  const auto fetch = [&](int b) {
    T* const tile = stages + b % 2 * stage;
    const int j = hidden(from + b * C::keys);
    fill_tile<T, D, C::keys, threads>(tile, segment.keys - j, a.d, a.wide, [&](int r) { return k + at.key(j + r); });
    fill_tile<T, D, C::keys, threads>(tile + stage / 2, segment.keys - j, a.d, a.wide, [&](int r) { return v + at.key(j + r); });
    commit_copies();
  };

  const int row = first + warp * 16 * M, low = at.own(row), high = at.own(smaller(row + 16 * M - 1, last));
  const bool works = row <= last;
  float o[M][D / 8][4], base[M][2], mass[M][2];  // base: the exponent subtracted, in powers of two; -inf before anything was seen
  clear(o);
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) base[m][half] = -INFINITY, mass[m][half] = 0.0f;

  if (blocks > 0) {
    fill_tile<T, D, rows, threads>(tile_q, at.rows() - first, a.d, a.wide, [&](int r) { return q + at.row(first + r); });
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
    float s[M][N][4];
    clear(s);
    multiply_rows<D>(s, tile_q + warp * 16 * M * D, tile);
    apply_sign(a, s);
    if (j + C::keys > segment.keys || !at.sees_all(low, high, j, C::keys)) {
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int own = at.own(row + 16 * m + 8 * half + g);
#pragma unroll
          for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              const int key = j + 8 * n + 2 * t + i;
              if (key >= segment.keys || !at.sees(own, key)) s[m][n][2 * half + i] = -INFINITY;
            }
        }
    }
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = -INFINITY;
#pragma unroll
        for (int n = 0; n < N; ++n) top = fmaxf(top, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
        top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 1));
        top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 2));
        const float next = fmaxf(base[m][half], top * a.steepness), less = next == -INFINITY ? 0.0f : next;
        const float fade = power_of_two(base[m][half] - less);
        base[m][half] = next;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& p = s[m][n][2 * half + i];
            p = power_of_two(fmaf(p, a.steepness, -less));
            sum += p;
          }
        mass[m][half] = fmaf(mass[m][half], fade, sum);
#pragma unroll
        for (int n = 0; n < D / 8; ++n) o[m][n][2 * half] *= fade, o[m][n][2 * half + 1] *= fade;
      }
    multiply_columns<D>(o, s, tile + stage / 2);
  }

  if (!works) return;
  T* const out = static_cast<T*>(a.o);
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = mass[m][half];
      sum += __shfl_xor_sync(whole_warp, sum, 1);
      sum += __shfl_xor_sync(whole_warp, sum, 2);
      const int r = row + 16 * m + 8 * half + g;
      if (r > last) continue;
      const float inverse = sum == 0.0f ? 0.0f : __fdividef(1.0f, sum);
      if (t == 0) a.lse[at.statistic(r)] = sum == 0.0f ? -INFINITY : fmaf(base[m][half], ln_2, logf(sum));
      T* const to_row = out + at.row(r);
#pragma unroll
      for (int n = 0; n < D / 8; ++n) put_pair(to_row, 8 * n + 2 * t, a.d, a.wide, o[m][n][2 * half] * inverse, o[m][n][2 * half + 1] * inverse);
    }
}
LOMO_KERNEL(attention_64_f32, 128, AttentionArgs, forward<float, 64, Cut<float, 64>>)  // 128 registers, 0 bytes
LOMO_KERNEL(attention_128_f32, 128, AttentionArgs, forward<float, 128, Cut<float, 128>>)  // 168 registers, 0 bytes
LOMO_KERNEL(attention_256_f32, 64, AttentionArgs, forward<float, 256, Cut<float, 256>>)  // 255 registers, 0 bytes
LOMO_KERNEL(attention_64_bf16, 128, AttentionArgs, forward<bf16, 64, Cut<Half, 64>>)  // 224 registers, 0 bytes
LOMO_KERNEL(attention_128_bf16, 128, AttentionArgs, forward<bf16, 128, Cut<Half, 128>>)  // 248 registers, 0 bytes
LOMO_KERNEL(attention_256_bf16, 128, AttentionArgs, forward<bf16, 256, Cut<Half, 256>>)  // 240 registers, 0 bytes
#endif

}  // namespace lomo::attention

#if !defined(LOMO_DEVICE)
#include "addon/attention.h"

namespace lomo {
namespace {

template <int D> void launch(const Call& call, const gpu::AttentionArgs& args) {
  const auto go = [&]<class C>(C) {
    constexpr int rows = attention::rows_of<C>;
    const std::int64_t blocks = ceil_div(std::int64_t{args.tokens} * args.per_group, rows) + args.segments + 2;
    start(call, KernelName(("attention_" + std::to_string(D)).c_str(), call.in(0).dtype), {blocks, args.groups, 32 * C::warps, attention::shared_of<C>(D)}, &args);
  };
  if (call.in(0).dtype == DType::f32) go(attention::Cut<float, D>{});
  else go(attention::Cut<attention::Half, D>{});
}

void run(const Call& call) {
  gpu::AttentionArgs args = attention_args("attention", call);
  args.o = call.out(0).data;
  args.lse = call.out(1).as<float>();
  same_size("attention", "o", call.out(0).count(), call.in(0).count());
  same_size("attention", "lse", call.out(1).count(), std::int64_t{args.tokens} * args.heads);
  args.wide = args.wide && wide({args.o});
  if (args.d <= 64) launch<64>(call, args);
  else if (args.d <= 128) launch<128>(call, args);
  else launch<256>(call, args);
}

}  // namespace

extern const Kernel kernels_attention[] = {
    {"attention", "scale causal window max_q max_k", accepts<"rrrii||rf">, run, nullptr},
    {},
};

}  // namespace lomo
#endif
