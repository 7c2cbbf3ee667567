// Splits work over OpenMP threads. Pieces are aligned to a unit, so that a vector never belongs to two threads; what a piece computes
// may not depend on where it begins, hence results do not depend on the number of threads.
#pragma once

#include <lomo/kernel.h>

#include "vec.h"

namespace lomo::LOMO_ISA {

// A fork costs a few microseconds: below this many bytes a thread does more good alone.
constexpr std::int64_t grain_bytes = 64 * 1024;

LOMO_INLINE std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
template <class T> LOMO_INLINE T smaller(T a, T b) { return b < a ? b : a; }
template <class T> LOMO_INLINE T larger(T a, T b) { return a < b ? b : a; }

// How many threads are worth their fork for `bytes` of traffic.
LOMO_INLINE int threads_for(const Call& call, std::int64_t bytes) {
  return static_cast<int>(larger<std::int64_t>(1, smaller<std::int64_t>(call.threads, bytes / grain_bytes)));
}

// body(begin, end), a lambda that captures by value, on pieces of [0, n) whose borders are multiples of `unit`; bytes_each is the memory traffic of one item.
template <class F> inline void split(const Call& call, std::int64_t n, std::int64_t unit, std::int64_t bytes_each, F body) {
  const int threads = threads_for(call, n * bytes_each);
  if (threads == 1) {
    if (n > 0) body(std::int64_t{0}, n);
    return;
  }
  const std::int64_t piece = ceil_div(ceil_div(n, unit), threads) * unit;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    const std::int64_t begin = t * piece, end = smaller(n, begin + piece);
    F mine = body;  // a private copy: captured by value, its numbers stay in registers
    if (begin < end) mine(begin, end);
  }
}

}  // namespace lomo::LOMO_ISA
