// What all update kernels share: the gradient after scale and clip, the write of p' with its rounding and random bits, a row's sums.
#pragma once

#include "gpu/philox.h"
#include "gpu/step.h"

namespace lomo::gpu {

// How p' becomes storage. Element i of a launch is element first + i of the parameter; its random word is word (first + i) mod 4 of
// Philox block (first + i) / 4, stream 0, so that tiles cannot be seen in the result.
struct UpdateArgs {
  const float* g;
  const float* scalars;
  void* p;
  int* counters;
  float* sums;  // [rows, 8], or null at steps that are not measured
  std::int64_t rows, columns, first;
  double weight_decay;
  float clip_value;
  std::uint32_t key;
  int index, stochastic;
  bool wide;  // whole Philox blocks lie on whole vectors of g and p
};

#if defined(LOMO_DEVICE)

// g' = g / loss scale, clamped to +-clip_value if that is > 0, times the clip coefficient. The division is rounded to nearest by two
// corrections of the product with the reciprocal, so it has no slow path to spill for; exact for every g where the scale is a power of two.
struct Gradient {
  float loss_scale, inverse, limit, clip;
  __device__ __forceinline__ Gradient(const float* scalars, float clip_value) : loss_scale(scalars[at_loss_scale]), limit(clip_value > 0 ? clip_value : INFINITY), clip(scalars[at_clip]) {
    const float near = reciprocal(loss_scale);
    inverse = fmaf(near, fmaf(-loss_scale, near, 1.0f), near);
  }
  __device__ __forceinline__ float operator()(float g) const {
    const float product = g * inverse;
    float x = fmaf(fmaf(-product, loss_scale, g), inverse, product);
    x = fmaf(fmaf(-x, loss_scale, g), inverse, x);
    x = finite(product) ? x : product;
    x = x > limit ? limit : x;
    x = x < -limit ? -limit : x;
    return x * clip;
  }
};

struct Rounding {
  u32 key0, key1, step;
  u64 first;
  bool stochastic;
  __device__ __forceinline__ Rounding(const UpdateArgs& a)
      : key0(static_cast<u32>(a.counters[at_seed_low])), key1(static_cast<u32>(a.counters[at_seed_high]) ^ a.key), step(static_cast<u32>(a.counters[at_step])), first(static_cast<u64>(a.first)), stochastic(a.stochastic != 0) {}
  __device__ __forceinline__ Words words(u64 block) const { return philox(key0, key1, block, step, 0); }
  // Chosen without an index, which would put the words on the stack.
  __device__ __forceinline__ u32 word(u64 element) const {
    const Words all = words(element / 4);
    const u32 even = element % 4 < 2 ? all.w[0] : all.w[2], odd = element % 4 < 2 ? all.w[1] : all.w[3];
    return element % 2 == 0 ? even : odd;
  }
};

// A row's eight sums (@lomo/optim, row_sums.ts). p before, p' as computed, q as stored.
struct RowSums {
  float v[8] = {};
  __device__ __forceinline__ void add(float before, float next, float stored, float g) {
    const float d = next - before, applied = stored - before, error = stored - next;
    v[0] += __float_as_uint(stored) == __float_as_uint(before) ? 0.0f : 1.0f;
    v[1] += d < 0 ? -d : d;
    v[2] += d == 0 ? 0.0f : d < 0 ? -applied : applied;
    v[3] += error * error;
    v[4] += d * d;
    v[5] += applied * applied;
    v[6] += before * before;
    v[7] += g * g;
  }
};

// Whether next(i, p, g') leaves what f16 holds: the whole grid looks before anybody writes.
template <class F> __device__ __forceinline__ void close_on_overflow(const UpdateArgs& a, F next) {
  if (!gate_open(a.counters)) return;
  const Gradient gradient(a.scalars, a.clip_value);
  const f16* p = static_cast<const f16*>(a.p);
  const i64 n = a.rows * a.columns;
  bool over = false;
  for (i64 i = sweep_start(); i < n; i += sweep_stride()) {
    const float x = next(i, get(p + i), gradient(a.g[i]));
    over = over || !((x < 0 ? -x : x) <= 65504.0f);
  }
  if (over) close_gate(a.counters, a.index);
}

// p[i] = round(next(i, p[i], g')) for the launch's elements, in groups of four that share a Philox block. A thread takes whole blocks of the
// parameter's numbering, so that each is computed once.
template <class T, class F> __device__ __forceinline__ void write_all(const UpdateArgs& a, F next) {
  const Rounding rounding(a);
  const Gradient gradient(a.scalars, a.clip_value);
  T* p = static_cast<T*>(a.p);
  const i64 n = a.rows * a.columns;
  const u64 head = rounding.first % 4, base = rounding.first / 4;
  const i64 blocks = (static_cast<i64>(head) + n + 3) / 4;
  for (i64 b = sweep_start(); b < blocks; b += sweep_stride()) {
    if (a.wide && 4 * b + 4 <= n) {
      float v[4], g[4];
      load4(g, a.g + 4 * b);
#pragma unroll
      for (int k = 0; k < 4; ++k) g[k] = gradient(g[k]);
      load4(v, p + 4 * b);
#pragma unroll
      for (int k = 0; k < 4; ++k) v[k] = next(4 * b + k, v[k], g[k]);
      if (rounding.stochastic) store4_stochastic(p + 4 * b, v, rounding.words(base + static_cast<u64>(b)));
      else store4(p + 4 * b, v);
      continue;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const i64 i = 4 * b - static_cast<i64>(head) + k;
      if (i < 0 || i >= n) continue;
      const float g = gradient(a.g[i]), x = next(i, get(p + i), g);
      if (rounding.stochastic) put_stochastic(p + i, x, rounding.word(rounding.first + static_cast<u64>(i)));
      else put(p + i, x);
    }
  }
}

// The same with a block a row, and the row's sums; the bits of p are those without.
template <class T, class F> __device__ __forceinline__ void write_measured(const UpdateArgs& a, F next) {
  const Rounding rounding(a);
  const Gradient gradient(a.scalars, a.clip_value);
  T* p = static_cast<T*>(a.p);
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    RowSums sums;
    for (i64 j = threadIdx.x; j < a.columns; j += blockDim.x) {
      const i64 i = row * a.columns + j;
      const float g = a.g[i], scaled = gradient(g), before = get(p + i), x = next(i, before, scaled);
      const u64 element = rounding.first + static_cast<u64>(i);
      if (rounding.stochastic) put_stochastic(p + i, x, rounding.word(element));
      else put(p + i, x);
      sums.add(before, x, get(p + i), g);
    }
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      float total = block_sum(sums.v[c]);
      // g was added as it came, scaled.
      if (c == 7) total = total / a.scalars[at_loss_scale] / a.scalars[at_loss_scale];
      if (threadIdx.x == 0) a.sums[row * 8 + c] = total;
    }
  }
}

template <class T, class F> __device__ __forceinline__ void write_update(const UpdateArgs& a, F next) {
  if (!gate_open(a.counters)) return;
  if (a.sums == nullptr) write_all<T>(a, next);
  else write_measured<T>(a, next);
}

#endif
}  // namespace lomo::gpu
