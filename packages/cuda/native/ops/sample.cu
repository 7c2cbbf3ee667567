// sample: one id a row, greedy or drawn from the top of the distribution, a block a row. Nothing is sorted: the entry at which a rank or
// a mass is reached is found by bisection over (logit, index) written as one ordered number.
#include "gpu/philox.h"
#include "gpu/step.h"

namespace lomo::sample {

struct SampleArgs {
  const float* logits;
  const int* counters;
  int* ids;
  double* weights;  // [rows, n]
  std::int64_t rows, n, top_k;
  double temperature, top_p;
  std::uint32_t draw;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

// Larger for larger logits, and among equal ones for lower indices.
__device__ __forceinline__ u64 ranked(float logit, i64 index) {
  u32 u = __float_as_uint(logit + 0.0f);  // -0 and 0 are one value
  u = (u & 0x80000000u) != 0 ? ~u : u | 0x80000000u;
  return static_cast<u64>(u) << 32 | (0xffffffffu - static_cast<u32>(index));
}
__device__ __forceinline__ int index_of(u64 entry) { return static_cast<int>(0xffffffffu - static_cast<u32>(entry)); }

// The largest x for which the sum of value(i) over entries ranked x or higher is at least `wanted` (above it, where `above`).
template <class F> __device__ __forceinline__ u64 reached(const float* l, i64 n, double wanted, bool above, F value) {
  u64 x = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const u64 candidate = x | u64{1} << bit;
    double mine = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x)
      if (ranked(l[i], i) >= candidate) mine += value(i);
    const double sum = block_sum(mine);
    if (above ? sum > wanted : sum >= wanted) x = candidate;
  }
  return x;
}

__device__ __forceinline__ void choose(const SampleArgs& a) {
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const float* l = a.logits + row * a.n;
    u64 best = 0;
    for (i64 i = threadIdx.x; i < a.n; i += blockDim.x) {
      const u64 r = ranked(l[i], i);
      if (r > best) best = r;
    }
    best = block_reduce(best, u64{0}, [](u64 x, u64 y) { return x > y ? x : y; });
    if (a.temperature == 0) {
      if (threadIdx.x == 0) a.ids[row] = index_of(best);
      continue;
    }
    double* weights = a.weights + row * a.n;
    const double top = l[index_of(best)];
    for (i64 i = threadIdx.x; i < a.n; i += blockDim.x) weights[i] = exp((static_cast<double>(l[i]) - top) / a.temperature);
    // Entries ranked `last` or higher are kept. Every thread reads the weights that it wrote itself.
    u64 last = 0;
    if (a.top_k > 0 && a.top_k < a.n) last = reached(l, a.n, static_cast<double>(a.top_k), false, [](i64) { return 1.0; });
    const auto mass_from = [&](u64 from) {
      double mine = 0;
      for (i64 i = threadIdx.x; i < a.n; i += blockDim.x)
        if (ranked(l[i], i) >= from) mine += weights[i];
      return block_sum(mine);
    };
    double total = mass_from(last);
    if (a.top_p < 1.0) {
      u64 prefix = a.top_p > 0 ? reached(l, a.n, a.top_p * total, false, [&](i64 i) { return weights[i]; }) : best;
      if (prefix > best) prefix = best;
      if (prefix > last) last = prefix;
      total = mass_from(last);
    }
    const Words words = philox(static_cast<u32>(a.counters[at_seed_low]), static_cast<u32>(a.counters[at_seed_high]), static_cast<u64>(a.draw) << 32 | static_cast<u64>(row), 0, 2);
    const double u = (static_cast<double>(words.w[0]) + 0.5) * 0x1p-32;
    u64 chosen = reached(l, a.n, u * total, true, [&](i64 i) { return weights[i]; });
    if (chosen < last) chosen = last;  // rounding of the sums
    // `last` may lie between entries: the lowest one that is kept.
    u64 entry = ~u64{0};
    for (i64 i = threadIdx.x; i < a.n; i += blockDim.x) {
      const u64 r = ranked(l[i], i);
      if (r >= chosen && r < entry) entry = r;
    }
    entry = block_reduce(entry, ~u64{0}, [](u64 x, u64 y) { return x < y ? x : y; });
    if (threadIdx.x == 0) a.ids[row] = index_of(entry);
  }
}
LOMO_KERNEL(sample_f32, 256, SampleArgs, choose)  // 40 registers, 768 bytes
#endif

}  // namespace lomo::sample

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void choose(const Call& call) {
  const std::int64_t n = call.in(0).last(), rows = call.out(0).count();
  same_size("sample", "logits", call.in(0).count(), rows * n);
  if (n == 0) throw Error("BadShape", "sample: no logits to choose from");
  const sample::SampleArgs args{call.in(0).as<const float>(), call.in(1).as<const int>(), call.out(0).as<int>(), static_cast<double*>(call.workspace), rows, n, call.integer(1), call.attr(0), call.attr(2), static_cast<std::uint32_t>(call.integer(3))};
  start(call, "sample_f32", row_grid(rows), &args);
}
std::size_t workspace(const Call& call) { return call.attr(0) == 0 ? 0 : static_cast<std::size_t>(call.in(0).count()) * sizeof(double); }

}  // namespace

extern const Kernel kernels_sample[] = {
    {"sample", "temperature top_k top_p draw", accepts<"fi||i">, choose, workspace},
    {},
};

}  // namespace lomo
#endif
