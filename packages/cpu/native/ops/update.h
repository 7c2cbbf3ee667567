// What all update kernels share: the gradient after scale and clip, and the write of p' with its rounding and random bits.
#pragma once

#include "gate.h"
#include "row_sums.h"
#include "../simd/philox.h"
#include "../simd/round.h"

namespace lomo::LOMO_ISA {

// g' = g / loss scale, clamped to +-clip_value if that is > 0, times the clip coefficient.
struct Gradient {
  float loss_scale, limit, clip;
  Gradient(const float* scalars, double clip_value)
      : loss_scale(scalars[at_loss_scale]), limit(clip_value > 0 ? static_cast<float>(clip_value) : __builtin_inff()), clip(scalars[at_clip]) {}
  LOMO_INLINE f32x16 operator()(const f32x16& g) const {
    f32x16 x = g / f32x16(loss_scale);
    x = select(x > limit, f32x16(limit), x);
    x = select(x < -limit, f32x16(-limit), x);
    return x * clip;
  }
};

// How p' becomes storage. Element i of a launch is element first + i of the parameter; its random word is word (first + i) mod 4 of
// Philox block (first + i) / 4, stream 0, so tiles and threads cannot be seen in the result.
struct Rounding {
  bool stochastic;
  std::uint64_t first;
  Philox philox;
  Rounding(const Call& call, const std::int32_t* counters, int at_key, int at_element, int at_rounding)
      : stochastic(call.flag(at_rounding)),
        first(static_cast<std::uint64_t>(call.attr(at_element))),
        philox(static_cast<std::uint32_t>(counters[at_seed_low]), static_cast<std::uint32_t>(counters[at_seed_high]) ^ static_cast<std::uint32_t>(call.integer(at_key)),
               static_cast<std::uint32_t>(counters[at_step]), 0) {}
};

// Who does not look at what is written.
struct Unwatched {
  static constexpr bool watching = false;
};

// p[i] = round(next(i, n)) for i in [begin, end); next gives the new values of n elements and is asked once for each. A watch is told of
// each vector after it was written: where, how many, what p was, what next gave.
template <class T, class F, class W = Unwatched> LOMO_INLINE void write_rounded(T* p, std::int64_t begin, std::int64_t end, const Rounding& rounding, F next, W&& watch = {}) {
  const auto write = [&](std::int64_t i, std::int64_t n, auto keep) LOMO_ALWAYS {
    if constexpr (std::remove_reference_t<W>::watching) {
      const f32x16 before = load(p + i, n), value = next(i, n);
      keep(value);
      watch(i, n, before, value);
    } else keep(next(i, n));
  };
  if (std::is_same_v<T, float> || !rounding.stochastic) {
    sweep(begin, end, [&](std::int64_t i, std::int64_t n) LOMO_ALWAYS { write(i, n, [&](const f32x16& value) LOMO_ALWAYS { store(p + i, value, n); }); });
    return;
  }
  // Up to the first whole block, then four blocks a vector.
  std::int64_t i = begin;
  const std::int64_t inside = static_cast<std::int64_t>((rounding.first + static_cast<std::uint64_t>(i)) % 4);
  if (inside != 0) {
    const std::int64_t n = smaller<std::int64_t>(4 - inside, end - i);
    const u32x16 words = rounding.philox.words((rounding.first + static_cast<std::uint64_t>(i)) / 4);
    u32x16 shifted(0u);
    for (int k = 0; k < n; ++k) shifted.set(k, words[static_cast<int>(inside) + k]);
    write(i, n, [&](const f32x16& value) LOMO_ALWAYS { store_stochastic(p + i, value, shifted, n); });
    i += n;
  }
  const std::uint64_t block = (rounding.first + static_cast<std::uint64_t>(i)) / 4;
  const std::int64_t origin = i;
  sweep(i, end, [&](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
    const u32x16 words = rounding.philox.words(block + static_cast<std::uint64_t>(j - origin) / 4);
    write(j, n, [&](const f32x16& value) LOMO_ALWAYS { store_stochastic(p + j, value, words, n); });
  });
}

// Where a launch leaves the sums of its rows: its last operand, or null at steps that are not measured.
inline float* sums_of(const Call& call, const char* op, std::int64_t rows) {
  if (call.outs == 0) return nullptr;
  same_size(op, "sums", call.out(0).count(), rows * row_width);
  return call.out(0).as<float>();
}

// Adds what is written to a row's sums; elements beyond the end count for nothing.
template <class T> struct RowWatch {
  static constexpr bool watching = true;
  const T* p;
  const float* g;
  RowSums sums;
  LOMO_INLINE void operator()(std::int64_t i, std::int64_t n, const f32x16& before, const f32x16& value) {
    const mask16 inside = lane_index() < static_cast<std::int32_t>(n);
    sums.template add<true>(before, select(inside, value, f32x16(0.0f)), load(p + i, n), load(g + i, n));
  }
};

// write_rounded for the k elements of one row, and their sums; the bits of p are the same.
template <class T, class F> LOMO_INLINE void write_row(T* p, std::int64_t row, std::int64_t k, const Rounding& rounding, F next, const float* g, float loss_scale, float* sums) {
  if (sums == nullptr) return write_rounded(p, row * k, (row + 1) * k, rounding, next);
  RowWatch<T> watch{p, g, {}};
  write_rounded(p, row * k, (row + 1) * k, rounding, next, watch);
  watch.sums.put(sums + row * row_width, loss_scale);
}

// write_rounded for rows of k, over the threads: all at once, or row by row where their sums are wanted.
template <class T, class F> inline void write_rows(const Call& call, T* p, std::int64_t rows, std::int64_t k, std::int64_t bytes_each, const Rounding& rounding, F next, const float* g, float loss_scale, float* sums) {
  if (sums == nullptr)
    return split(call, rows * k, 64, bytes_each, [=](std::int64_t begin, std::int64_t end) { write_rounded(p, begin, end, rounding, next); });
  split(call, rows, 1, k * bytes_each, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) write_row(p, row, k, rounding, next, g, loss_scale, sums);
  });
}

// Whether p' leaves what f16 holds (65504); other storage has the range of f32 and is never swept.
template <class T, class F> inline bool overflows(const Call& call, std::int64_t count, F next) {
  if constexpr (!std::is_same_v<T, f16>) return false;
  else return anywhere(call, count, 8, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
    return (lane_index() < static_cast<std::int32_t>(n)) & ~(abs(next(i, n)) <= 65504.0f);
  });
}

}  // namespace lomo::LOMO_ISA
