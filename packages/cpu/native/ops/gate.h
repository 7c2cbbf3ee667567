// The step tensors (`scalars` f32 [8], `counters` i32 [8]) and the gate, as kernels see them.
#pragma once

#include "dispatch.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {

// Places in scalars and counters.
constexpr int at_lr = 0, at_inverse_tokens = 1, at_clip = 2, at_loss_scale = 3;
constexpr int at_step = 0, at_seed_low = 1, at_seed_high = 2, at_gate = 3, at_closed_by = 4;

LOMO_INLINE bool gate_open(const std::int32_t* counters) { return counters[at_gate] == 0; }
LOMO_INLINE void close_gate(std::int32_t* counters, std::int64_t index) {
  if (!gate_open(counters)) return;
  counters[at_gate] = 1;
  counters[at_closed_by] = static_cast<std::int32_t>(index);
}

// Whether test(i, n), a mask of n elements from i on, is set anywhere; any thread may find it, the answer is the same.
template <class F> inline bool anywhere(const Call& call, std::int64_t count, std::int64_t bytes_each, F test) {
  int found = 0;
  int* flag = &found;
  split(call, count, 64, bytes_each, [=](std::int64_t begin, std::int64_t end) {
    mask16 seen(0);
    sweep(begin, end, [&](std::int64_t i, std::int64_t n) LOMO_ALWAYS { seen |= test(i, n); });
    if (any(seen)) __atomic_store_n(flag, 1, __ATOMIC_RELAXED);
  });
  return found != 0;
}

LOMO_INLINE bool all_finite(const Call& call, const float* g, std::int64_t count) {
  return !anywhere(call, count, 4, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { return not_finite(load(g + i, n)); });
}

}  // namespace lomo::LOMO_ISA
