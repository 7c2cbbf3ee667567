// What all update kernels share: the gradient after scale and clip, and the write of p' with its rounding and random bits.
#pragma once

#include "gate.h"
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

// p[i] = round(next(i, n)) for i in [begin, end); next gives the new values of n elements and is asked once for each.
template <class T, class F> LOMO_INLINE void write_rounded(T* p, std::int64_t begin, std::int64_t end, const Rounding& rounding, F next) {
  if (std::is_same_v<T, float> || !rounding.stochastic) {
    sweep(begin, end, [&](std::int64_t i, std::int64_t n) LOMO_ALWAYS { store(p + i, next(i, n), n); });
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
    store_stochastic(p + i, next(i, n), shifted, n);
    i += n;
  }
  const std::uint64_t block = (rounding.first + static_cast<std::uint64_t>(i)) / 4;
  const std::int64_t origin = i;
  sweep(i, end, [&](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
    store_stochastic(p + j, next(j, n), rounding.philox.words(block + static_cast<std::uint64_t>(j - origin) / 4), n);
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
