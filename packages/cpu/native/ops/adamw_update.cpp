// adamw_update: torch.optim.AdamW's step (decoupled decay, bias-corrected moments) on a tile, with the same gradient, rounding and gate as LOMO.
#include <cmath>

#include "update.h"

namespace lomo::LOMO_ISA {
namespace {

enum { key, element, index, weight_decay, clip_value, rounding, check, beta1, beta2, eps };

void adamw_update(const Call& call) {
  const std::int64_t count = call.inout(0).count();
  same_size("adamw_update", "g", call.in(0).count(), count);
  same_size("adamw_update", "m", call.inout(1).count(), count);
  same_size("adamw_update", "v", call.inout(2).count(), count);
  const float* g = call.in(0).as<const float>();
  const float* scalars = call.in(1).as<const float>();
  float* m = call.inout(1).as<float>();
  float* v = call.inout(2).as<float>();
  std::int32_t* counters = call.inout(3).as<std::int32_t>();
  const std::int64_t rows = call.in(0).rows();
  float* sums = sums_of(call, "adamw_update", rows);
  if (!gate_open(counters)) return;
  if (call.flag(check) && !all_finite(call, g, count)) return close_gate(counters, call.integer(index));
  const Gradient gradient(scalars, call.attr(clip_value));
  const Rounding how(call, counters, key, element, rounding);
  const double lr = scalars[at_lr], t = counters[at_step], b1 = call.attr(beta1), b2 = call.attr(beta2);
  const float keep = static_cast<float>(1.0 - lr * call.attr(weight_decay));
  const float step = static_cast<float>(lr / (1.0 - std::pow(b1, t)));
  const float correction = static_cast<float>(std::sqrt(1.0 - std::pow(b2, t)));
  const float f1 = static_cast<float>(b1), rest1 = static_cast<float>(1.0 - b1), f2 = static_cast<float>(b2), rest2 = static_cast<float>(1.0 - b2);
  const float small = static_cast<float>(call.attr(eps));
  struct State { f32x16 p, m, v; };
  with_storage(call.inout(0).dtype, [&](auto* type) {
    using T = pointee<decltype(type)>;
    T* p = call.inout(0).as<T>();
    const auto state = [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
      State s;
      const f32x16 x = gradient(load(g + i, n));
      s.m = load(m + i, n) * f1 + x * rest1;
      s.v = load(v + i, n) * f2 + x * x * rest2;
      s.p = load(p + i, n) * keep - step * s.m / (sqrt(s.v) / f32x16(correction) + small);
      return s;
    };
    if (overflows<T>(call, count, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { return state(i, n).p; }))
      return close_gate(counters, call.integer(index));
    const auto next = [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
      const State s = state(i, n);
      store(m + i, s.m, n);
      store(v + i, s.v, n);
      return s.p;
    };
    write_rows(call, p, rows, count / larger<std::int64_t>(1, rows), 20 + 2 * sizeof(T), how, next, g, scalars[at_loss_scale], sums);
  });
}

}  // namespace

extern const Kernel kernels_adamw_update[];
const Kernel kernels_adamw_update[] = {
    {"adamw_update", "key element index weight_decay clip_value rounding check beta1 beta2 eps", accepts<"ff|pffi|">, adamw_update, nullptr},
    {"adamw_update", "key element index weight_decay clip_value rounding check beta1 beta2 eps", accepts<"ff|pffi|f">, adamw_update, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
