// sum_squares, norm_add, clip_coefficient: the global norm in double, in one order; and mean, AdaLomo's average of row statistics.
#include <cmath>

#include "gate.h"
#include "row_sum.h"

namespace lomo::LOMO_ISA {
namespace {

void sum_squares(const Call& call) {
  const std::int64_t k = call.in(0).last(), rows = call.out(0).count();
  same_size("sum_squares", "g", call.in(0).count(), rows * k);
  const float* g = call.in(0).as<const float>();
  float* s = call.out(0).as<float>();
  split(call, rows, 1, 4 * k, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      s[r] = static_cast<float>(row_sum_f64(k, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
        const f64x16 v = to_f64(load(g + r * k + j, n));
        return v * v;
      }));
  });
}

// `total` keeps a double as the f32 nearest to it and the rest.
void norm_add(const Call& call) {
  const float* s = call.in(0).as<const float>();
  float* total = call.inout(0).as<float>();
  same_size("norm_add", "total", call.inout(0).count(), 2);
  double sum = static_cast<double>(total[0]) + static_cast<double>(total[1]);
  for (std::int64_t i = 0; i < call.in(0).count(); ++i) sum += static_cast<double>(s[i]);
  total[0] = static_cast<float>(sum);
  total[1] = static_cast<float>(sum - static_cast<double>(total[0]));
}

void clip_coefficient(const Call& call) {
  const float* total = call.in(0).as<const float>();
  same_size("clip_coefficient", "total", call.in(0).count(), 2);
  float* scalars = call.inout(0).as<float>();
  const double sum = static_cast<double>(total[0]) + static_cast<double>(total[1]);
  if (!std::isfinite(sum)) return close_gate(call.inout(1).as<std::int32_t>(), call.integer(1));
  const double norm = std::sqrt(sum) / static_cast<double>(scalars[at_loss_scale]);
  scalars[at_clip] = static_cast<float>(smaller(1.0, call.attr(0) / (norm + 1e-6)));
}

void mean(const Call& call) {
  const float* s = call.in(0).as<const float>();
  const std::int64_t n = call.in(0).count();
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(s[i]);
  call.out(0).as<float>()[0] = static_cast<float>(sum / static_cast<double>(n));
}

}  // namespace

extern const Kernel kernels_norm[];
const Kernel kernels_norm[] = {
    {"sum_squares", "", accepts<"f||f">, sum_squares, nullptr},
    {"norm_add", "", accepts<"f|f|">, norm_add, nullptr},
    {"clip_coefficient", "max_norm index", accepts<"f|fi|">, clip_coefficient, nullptr},
    {"mean", "", accepts<"f||f">, mean, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
