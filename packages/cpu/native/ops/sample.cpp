// sample: one id a row, greedy or drawn from the top of the distribution; a heap orders only as much of the row as is needed.
#include <cmath>

#include "gate.h"
#include "../simd/philox.h"

namespace lomo::LOMO_ISA {
namespace {

// Orders like (logit descending, index ascending) when compared as integers, largest first.
std::uint64_t ranked(float logit, std::int64_t index) {
  std::uint32_t u;
  logit += 0.0f;  // -0 and 0 are one value
  std::memcpy(&u, &logit, 4);
  u = (u & 0x80000000u) != 0 ? ~u : u | 0x80000000u;
  return static_cast<std::uint64_t>(u) << 32 | (0xffffffffu - static_cast<std::uint32_t>(index));
}
std::int32_t index_of(std::uint64_t entry) { return static_cast<std::int32_t>(0xffffffffu - static_cast<std::uint32_t>(entry)); }

void sift_down(std::uint64_t* heap, std::int64_t n, std::int64_t at) {
  const std::uint64_t entry = heap[at];
  for (std::int64_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
    if (child + 1 < n && heap[child + 1] > heap[child]) ++child;
    if (heap[child] <= entry) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = entry;
}

std::int32_t greedy(const float* l, std::int64_t n) {
  std::int64_t best = 0;
  for (std::int64_t i = 1; i < n; ++i)
    if (l[i] > l[best]) best = i;
  return static_cast<std::int32_t>(best);
}

struct Drawing { double temperature, top_p, u; std::int64_t top_k; };

std::int32_t drawn(const float* l, std::int64_t n, const Drawing& how, std::uint64_t* heap) {
  for (std::int64_t i = 0; i < n; ++i) heap[i] = ranked(l[i], i);
  for (std::int64_t i = n / 2 - 1; i >= 0; --i) sift_down(heap, n, i);
  const double top = static_cast<double>(l[index_of(heap[0])]);
  const auto weight = [&](std::uint64_t entry) { return std::exp((static_cast<double>(l[index_of(entry)]) - top) / how.temperature); };
  // The largest leaves the heap for the free end of the array: sorted entries are heap[n - 1], heap[n - 2], ...
  std::int64_t sorted = 0;
  const auto take = [&] {
    const std::int64_t end = n - 1 - sorted;
    const std::uint64_t largest_entry = heap[0];
    heap[0] = heap[end];
    heap[end] = largest_entry;
    ++sorted;
    if (end > 0) sift_down(heap, end, 0);
    return weight(largest_entry);
  };
  std::int64_t kept = how.top_k > 0 ? smaller(how.top_k, n) : n;
  double total = 0;
  if (kept < n) {
    while (sorted < kept) total += take();
  } else {
    for (std::int64_t i = 0; i < n; ++i) total += weight(heap[i]);
  }
  const auto at = [&](std::int64_t i) { return i < sorted ? weight(heap[n - 1 - i]) : take(); };
  if (how.top_p < 1.0) {
    double mass = 0;
    std::int64_t i = 0;
    while (i < kept && (i == 0 || mass < how.top_p * total)) mass += at(i++);
    kept = i;
    total = mass;
  }
  double mass = 0;
  for (std::int64_t i = 0; i < kept; ++i) {
    mass += at(i);
    if (mass > how.u * total) return index_of(heap[n - 1 - i]);
  }
  return index_of(heap[n - kept]);
}

void sample(const Call& call) {
  const std::int64_t n = call.in(0).last(), rows = call.out(0).count();
  same_size("sample", "logits", call.in(0).count(), rows * n);
  LOMO_REQUIRE(n > 0, "BadShape", "sample: no logits to choose from");
  const float* logits = call.in(0).as<const float>();
  const std::int32_t* counters = call.in(1).as<const std::int32_t>();
  std::int32_t* ids = call.out(0).as<std::int32_t>();
  const Philox philox(static_cast<std::uint32_t>(counters[at_seed_low]), static_cast<std::uint32_t>(counters[at_seed_high]), 0, 2);
  for (std::int64_t r = 0; r < rows; ++r) {
    if (call.attr(0) == 0) {
      ids[r] = greedy(logits + r * n, n);
      continue;
    }
    const std::uint64_t block = static_cast<std::uint64_t>(call.integer(3)) << 32 | static_cast<std::uint64_t>(r);
    const double u = (static_cast<double>(philox.words(block)[0]) + 0.5) * 0x1p-32;
    ids[r] = drawn(logits + r * n, n, {call.attr(0), call.attr(2), u, call.integer(1)}, static_cast<std::uint64_t*>(call.workspace));
  }
}

std::size_t sample_workspace(const Call& call) { return call.attr(0) == 0 ? 0 : static_cast<std::size_t>(call.in(0).last()) * sizeof(std::uint64_t); }

}  // namespace

extern const Kernel kernels_sample[];
const Kernel kernels_sample[] = {
    {"sample", "temperature top_k top_p draw", accepts<"fi||i">, sample, sample_workspace},
    {},
};

}  // namespace lomo::LOMO_ISA
