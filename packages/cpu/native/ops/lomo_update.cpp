// lomo_update: unscale, clip, decay, step, round and gate in one sweep over a tile of the gradient and the parameter; with one
// operand more, the sums of its rows.
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
  const std::int64_t rows = call.in(0).rows();
  float* sums = sums_of(call, "lomo_update", rows);
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
    write_rows(call, p, rows, count / larger<std::int64_t>(1, rows), 4 + 2 * sizeof(T), how, next, g, scalars[at_loss_scale], sums);
  });
}

}  // namespace

extern const Kernel kernels_lomo_update[];
const Kernel kernels_lomo_update[] = {
    {"lomo_update", "key element index weight_decay clip_value rounding check", accepts<"ff|pi|">, lomo_update, nullptr},
    {"lomo_update", "key element index weight_decay clip_value rounding check", accepts<"ff|pi|f">, lomo_update, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
