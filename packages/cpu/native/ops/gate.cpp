// gate_loss and gate_check: a non-finite loss or gradient closes the gate, and nothing is written from then on.
#include "gate.h"

namespace lomo::LOMO_ISA {
namespace {

void gate_loss(const Call& call) {
  const float* sums = call.in(0).as<const float>();
  const std::int64_t n = call.in(0).count() / 2;
  for (std::int64_t i = 0; i < n; ++i)
    if (!__builtin_isfinite(sums[i] + sums[n + i])) close_gate(call.inout(0).as<std::int32_t>(), call.integer(0));
}

void gate_check(const Call& call) {
  std::int32_t* counters = call.inout(0).as<std::int32_t>();
  if (gate_open(counters) && !all_finite(call, call.in(0).as<const float>(), call.in(0).count())) close_gate(counters, call.integer(0));
}

}  // namespace

extern const Kernel kernels_gate[];
const Kernel kernels_gate[] = {
    {"gate_loss", "index", accepts<"f|i|">, gate_loss, nullptr},
    {"gate_check", "index", accepts<"f|i|">, gate_check, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
