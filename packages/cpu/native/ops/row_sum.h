// Sums over one row in a fixed order: four interleaved accumulators of sixteen lanes, then one tree.
#pragma once

#include "../simd/storage.h"

namespace lomo::LOMO_ISA {

// Sum of term(j, n), a vector of n terms from column j on (0 in the lanes beyond n).
template <class F> LOMO_INLINE float row_sum(std::int64_t width, F term) {
  f32x16 s0(0.0f), s1(0.0f), s2(0.0f), s3(0.0f);
  std::int64_t j = 0;
  for (; j + 4 * lanes <= width; j += 4 * lanes) {
    s0 += term(j, std::int64_t{lanes});
    s1 += term(j + lanes, std::int64_t{lanes});
    s2 += term(j + 2 * lanes, std::int64_t{lanes});
    s3 += term(j + 3 * lanes, std::int64_t{lanes});
  }
  sweep(j, width, [&](std::int64_t i, std::int64_t n) LOMO_ALWAYS { s0 += term(i, n); });
  return sum((s0 + s1) + (s2 + s3));
}

// The same in double; term gives f64x16.
template <class F> LOMO_INLINE double row_sum_f64(std::int64_t width, F term) {
  f64x16 s(0.0);
  sweep(0, width, [&](std::int64_t j, std::int64_t n) LOMO_ALWAYS { s += term(j, n); });
  return sum(s);
}

}  // namespace lomo::LOMO_ISA
