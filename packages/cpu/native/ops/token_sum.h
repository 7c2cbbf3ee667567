// The one order of sums over tokens: chunks of 512 global rows, ascending, with (closed chunks, open chunk) carried in sums [2, n].
#pragma once

#include "../simd/storage.h"

namespace lomo::LOMO_ISA {

constexpr std::int64_t chunk = 512;

// Adds rows [first, last) of a launch whose row 0 is global row `start` to columns [begin, end) of sums; term(row, column, n) is one vector.
// Four rows at a time share one read and write of the open chunk; each column still adds its rows one after the other.
template <class F>
LOMO_INLINE void add_rows(float* sums, std::int64_t width, std::int64_t begin, std::int64_t end, std::int64_t start, std::int64_t first, std::int64_t last, F term) {
  float* closed = sums;
  float* open = sums + width;
  std::int64_t row = first;
  while (row < last) {
    const std::int64_t at = start + row, left = chunk - at % chunk;
    if (at % chunk == 0 && at != 0) {
      sweep(begin, end, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
        store(closed + j, load(closed + j, n) + load(open + j, n), n);
        store(open + j, f32x16(0.0f), n);
      });
    }
    const std::int64_t stop = left < last - row ? row + left : last;
    for (; row + 4 <= stop; row += 4) {
      sweep(begin, end, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
        f32x16 s = load(open + j, n) + term(row, j, n);
        s += term(row + 1, j, n);
        s += term(row + 2, j, n);
        store(open + j, s + term(row + 3, j, n), n);
      });
    }
    for (; row < stop; ++row)
      sweep(begin, end, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS { store(open + j, load(open + j, n) + term(row, j, n), n); });
  }
}

}  // namespace lomo::LOMO_ISA
