// AdaLomo's statistics: factored second moments of a matrix, the plain one of a vector, and the sums that its step needs.
#include <cmath>

#include "row_sum.h"
#include "token_sum.h"
#include "update.h"

namespace lomo::LOMO_ISA {
namespace {

double decay(const std::int32_t* counters, double rate) { return 1.0 - std::pow(static_cast<double>(counters[at_step]), rate); }

void adalomo_moments(const Call& call) {
  enum { start, decay_rate, eps1, clip_value, index, check };
  const std::int64_t k = call.in(0).last(), rows = call.in(0).rows();
  same_size("adalomo_moments", "r", call.inout(0).count(), rows);
  same_size("adalomo_moments", "sums", call.inout(1).count(), 2 * k);
  const float* g = call.in(0).as<const float>();
  float* r = call.inout(0).as<float>();
  float* sums = call.inout(1).as<float>();
  std::int32_t* counters = call.inout(2).as<std::int32_t>();
  if (!gate_open(counters)) return;
  if (call.flag(check) && !all_finite(call, g, rows * k)) return close_gate(counters, call.integer(index));
  const Gradient gradient(call.in(1).as<const float>(), call.attr(clip_value));
  const double b2 = decay(counters, call.attr(decay_rate));
  const float small = static_cast<float>(call.attr(eps1));
  const std::int64_t from = call.integer(start);
  const auto square = [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
    const f32x16 x = gradient(load(g + i, n));
    return x * x + small;
  };
  // Two splits, so that neither sum depends on the threads: rows for r, columns for sums.
  split(call, rows, 1, 4 * k, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const double q = static_cast<double>(row_sum(k, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
        return select(lane_index() < static_cast<std::int32_t>(n), square(i * k + j, n), f32x16(0.0f));
      }));
      r[i] = static_cast<float>(b2 * static_cast<double>(r[i]) + (1.0 - b2) * q / static_cast<double>(k));
    }
  });
  split(call, k, 64, 4 * rows, [=](std::int64_t begin, std::int64_t end) {
    add_rows(sums, k, begin, end, from, 0, rows, [=](std::int64_t i, std::int64_t j, std::int64_t n) LOMO_ALWAYS { return square(i * k + j, n); });
  });
}

void adalomo_columns(const Call& call) {
  const std::int64_t k = call.inout(0).count();
  same_size("adalomo_columns", "sums", call.in(0).count(), 2 * k);
  const float* sums = call.in(0).as<const float>();
  const std::int32_t* counters = call.in(2).as<const std::int32_t>();
  float* c = call.inout(0).as<float>();
  if (!gate_open(counters)) return;
  const double b2 = decay(counters, call.attr(1)), rest = (1.0 - b2) / call.attr(0);
  for (std::int64_t j = 0; j < k; ++j)
    c[j] = static_cast<float>(b2 * static_cast<double>(c[j]) + rest * (static_cast<double>(sums[j]) + static_cast<double>(sums[k + j])));
}

void adalomo_vector(const Call& call) {
  enum { decay_rate, eps1, clip_value, index, check };
  const std::int64_t n = call.in(0).count();
  same_size("adalomo_vector", "v", call.inout(0).count(), n);
  const float* g = call.in(0).as<const float>();
  float* v = call.inout(0).as<float>();
  std::int32_t* counters = call.inout(1).as<std::int32_t>();
  if (!gate_open(counters)) return;
  if (call.flag(check) && !all_finite(call, g, n)) return close_gate(counters, call.integer(index));
  const Gradient gradient(call.in(1).as<const float>(), call.attr(clip_value));
  const double b2 = decay(counters, call.attr(decay_rate));
  const float keep = static_cast<float>(b2), rest = static_cast<float>(1.0 - b2), small = static_cast<float>(call.attr(eps1));
  split(call, n, 64, 12, [=](std::int64_t begin, std::int64_t end) {
    sweep(begin, end, [=](std::int64_t i, std::int64_t k) LOMO_ALWAYS {
      const f32x16 x = gradient(load(g + i, k));
      store(v + i, load(v + i, k) * keep + (x * x + small) * rest, k);
    });
  });
}

// The update's direction: one formula for the ratio's sums and for the step, so that both see the same numbers.
struct MatrixDirection {
  const float* g; const float* r; const float* c;
  float mean;
  std::int64_t k;
  Gradient gradient;
  LOMO_INLINE float row_factor(std::int64_t i) const { return static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(r[i]) / static_cast<double>(mean))); }
  // u of n elements from row i, column j on.
  LOMO_INLINE f32x16 operator()(std::int64_t i, std::int64_t j, std::int64_t n, float factor) const {
    const f32x16 column = select(lane_index() < static_cast<std::int32_t>(n), load(c + j, n), f32x16(1.0f));
    return gradient(load(g + i * k + j, n)) * factor / sqrt(column);
  }
};
struct VectorDirection {
  const float* g; const float* v;
  Gradient gradient;
  LOMO_INLINE f32x16 operator()(std::int64_t i, std::int64_t n) const {
    const f32x16 second = select(lane_index() < static_cast<std::int32_t>(n), load(v + i, n), f32x16(1.0f));
    return gradient(load(g + i, n)) / sqrt(second);
  }
};

void adalomo_ratio(const Call& call) {
  const std::int64_t k = call.in(0).last(), rows = call.in(0).rows();
  same_size("adalomo_ratio", "p", call.in(1).count(), rows * k);
  same_size("adalomo_ratio", "r", call.in(2).count(), rows);
  same_size("adalomo_ratio", "c", call.in(3).count(), k);
  const MatrixDirection direction{call.in(0).as<const float>(), call.in(2).as<const float>(), call.in(3).as<const float>(), *call.in(4).as<const float>(), k,
                                  Gradient(call.in(5).as<const float>(), call.attr(0))};
  float* u2 = call.out(0).as<float>();
  float* p2 = call.out(1).as<float>();
  with_storage(call.in(1).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T* p = call.in(1).as<const T>();
    split(call, rows, 1, k * static_cast<std::int64_t>(4 + sizeof(T)), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float factor = direction.row_factor(i);
        u2[i] = static_cast<float>(row_sum_f64(k, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
          const f64x16 u = to_f64(direction(i, j, n, factor));
          return u * u;
        }));
        p2[i] = static_cast<float>(row_sum_f64(k, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
          const f64x16 x = to_f64(load(p + i * k + j, n));
          return x * x;
        }));
      }
    });
  });
}

void adalomo_vector_ratio(const Call& call) {
  const std::int64_t count = call.in(0).count();
  same_size("adalomo_vector_ratio", "p", call.in(1).count(), count);
  same_size("adalomo_vector_ratio", "v", call.in(2).count(), count);
  const VectorDirection direction{call.in(0).as<const float>(), call.in(2).as<const float>(), Gradient(call.in(3).as<const float>(), call.attr(0))};
  *call.out(0).as<float>() = static_cast<float>(row_sum_f64(count, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
    const f64x16 u = to_f64(direction(i, n));
    return u * u;
  }));
  with_storage(call.in(1).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T* p = call.in(1).as<const T>();
    *call.out(1).as<float>() = static_cast<float>(row_sum_f64(count, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
      const f64x16 x = to_f64(load(p + i, n));
      return x * x;
    }));
  });
}

enum { key, element, index, weight_decay, clip_value, rounding, eps2, ratio_limit, parameter_count };

double sum_ascending(const Operand& s) {
  double sum = 0;
  for (std::int64_t i = 0; i < s.count(); ++i) sum += static_cast<double>(s.as<const float>()[i]);
  return sum;
}

// p = p keep - u step, with the relative step size and the cap on the update's root mean square.
struct Step {
  float keep, size;
  Step(const Call& call, const Operand& u2, const Operand& p2, const float* scalars) {
    const double count = call.attr(parameter_count);
    const double eta = static_cast<double>(scalars[at_lr]) * larger(call.attr(eps2), std::sqrt(sum_ascending(p2) / count));
    keep = static_cast<float>(1.0 - eta * call.attr(weight_decay));
    size = static_cast<float>(eta / larger(1.0, std::sqrt(sum_ascending(u2) / count) / call.attr(ratio_limit)));
  }
};

void adalomo_update(const Call& call) {
  const std::int64_t k = call.in(0).last(), rows = call.in(0).rows();
  same_size("adalomo_update", "p", call.inout(0).count(), rows * k);
  same_size("adalomo_update", "r", call.in(1).count(), rows);
  same_size("adalomo_update", "c", call.in(2).count(), k);
  const float* scalars = call.in(6).as<const float>();
  std::int32_t* counters = call.inout(1).as<std::int32_t>();
  float* sums = sums_of(call, "adalomo_update", rows);
  if (!gate_open(counters)) return;
  const MatrixDirection direction{call.in(0).as<const float>(), call.in(1).as<const float>(), call.in(2).as<const float>(), *call.in(3).as<const float>(), k,
                                  Gradient(scalars, call.attr(clip_value))};
  const Step step(call, call.in(4), call.in(5), scalars);
  const Rounding how(call, counters, key, element, rounding);
  with_storage(call.inout(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    T* p = call.inout(0).as<T>();
    const auto next = [=](std::int64_t row, std::int64_t j, std::int64_t n, float factor) LOMO_ALWAYS {
      return load(p + row * k + j, n) * step.keep - direction(row, j, n, factor) * step.size;
    };
    for (std::int64_t row = 0; std::is_same_v<T, f16> && row < rows; ++row) {
      const float factor = direction.row_factor(row);
      if (overflows<T>(call, k, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS { return next(row, j, n, factor); })) return close_gate(counters, call.integer(index));
    }
    split(call, rows, 1, k * static_cast<std::int64_t>(4 + 2 * sizeof(T)), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const float factor = direction.row_factor(row);
        const auto value = [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { return next(row, i - row * k, n, factor); };
        write_row(p, row, k, how, value, direction.g, direction.gradient.loss_scale, sums);
      }
    });
  });
}

void adalomo_vector_update(const Call& call) {
  const std::int64_t count = call.in(0).count();
  same_size("adalomo_vector_update", "p", call.inout(0).count(), count);
  same_size("adalomo_vector_update", "v", call.in(1).count(), count);
  const float* scalars = call.in(4).as<const float>();
  std::int32_t* counters = call.inout(1).as<std::int32_t>();
  float* sums = sums_of(call, "adalomo_vector_update", 1);
  if (!gate_open(counters)) return;
  const VectorDirection direction{call.in(0).as<const float>(), call.in(1).as<const float>(), Gradient(scalars, call.attr(clip_value))};
  const Step step(call, call.in(2), call.in(3), scalars);
  const Rounding how(call, counters, key, element, rounding);
  with_storage(call.inout(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    T* p = call.inout(0).as<T>();
    const auto next = [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { return load(p + i, n) * step.keep - direction(i, n) * step.size; };
    if (overflows<T>(call, count, next)) return close_gate(counters, call.integer(index));
    write_rows(call, p, 1, count, 4 + 2 * sizeof(T), how, next, direction.g, direction.gradient.loss_scale, sums);
  });
}

constexpr const char* update_attributes = "key element index weight_decay clip_value rounding eps2 d count";

}  // namespace

extern const Kernel kernels_adalomo[];
const Kernel kernels_adalomo[] = {
    {"adalomo_moments", "start decay_rate eps1 clip_value index check", accepts<"ff|ffi|">, adalomo_moments, nullptr},
    {"adalomo_columns", "rows decay_rate", accepts<"ffi|f|">, adalomo_columns, nullptr},
    {"adalomo_ratio", "clip_value", accepts<"fpffff||ff">, adalomo_ratio, nullptr},
    {"adalomo_vector", "decay_rate eps1 clip_value index check", accepts<"ff|fi|">, adalomo_vector, nullptr},
    {"adalomo_vector_ratio", "clip_value", accepts<"fpff||ff">, adalomo_vector_ratio, nullptr},
    {"adalomo_update", update_attributes, accepts<"fffffff|pi|">, adalomo_update, nullptr},
    {"adalomo_update", update_attributes, accepts<"fffffff|pi|f">, adalomo_update, nullptr},
    {"adalomo_vector_update", update_attributes, accepts<"fffff|pi|">, adalomo_vector_update, nullptr},
    {"adalomo_vector_update", update_attributes, accepts<"fffff|pi|f">, adalomo_vector_update, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
