// lomo_update: unscale, clip, decay, step, round and gate in one sweep over a tile of the gradient and the parameter.
#include "update.h"

namespace lomo::LOMO_ISA {
namespace {

enum { key, element, index, weight_decay, clip_value, rounding, check };

void lomo_update(const Call& call) {
  const std::int64_t count = call.inout(0).count();
  same_size("lomo_update", "g", call.in(0).count(), count);
  const float* g = call.in(0).as<const float>();
  const float* scalars = call.in(1).as<const float>();
  std::int32_t* counters = call.inout(1).as<std::int32_t>();
  if (!gate_open(counters)) return;
  if (call.flag(check) && !all_finite(call, g, count)) return close_gate(counters, call.integer(index));
  const Gradient gradient(scalars, call.attr(clip_value));
  const Rounding how(call, counters, key, element, rounding);
  const float lr = scalars[at_lr], keep = static_cast<float>(1.0 - static_cast<double>(lr) * call.attr(weight_decay));
  with_storage(call.inout(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    T* p = call.inout(0).as<T>();
    const auto next = [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { return load(p + i, n) * keep - gradient(load(g + i, n)) * lr; };
    if (overflows<T>(call, count, next)) return close_gate(counters, call.integer(index));
    split(call, count, 64, 4 + 2 * sizeof(T), [=](std::int64_t begin, std::int64_t end) { write_rounded(p, begin, end, how, next); });
  });
}

}  // namespace

extern const Kernel kernels_lomo_update[];
const Kernel kernels_lomo_update[] = {
    {"lomo_update", "key element index weight_decay clip_value rounding check", accepts<"ff|pi|">, lomo_update, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
