// AdaLomo's seven kernels, one after the other, against its textbook form in double precision.
#include "harness.h"

namespace test {
namespace {

struct Sums { double u2 = 0, p2 = 0; };

void matrix(DType t, std::int64_t rows, std::int64_t k, int step) {
  const double lr = 0.01, clip = 0.5, scale = 2, rate = -0.8, eps1 = 1e-30, eps2 = 1e-3, decay = 0.1, d = 1, count = static_cast<double>(rows * k);
  const Tensor g = normal(DType::f32, {rows, k}), p = normal(t, {rows, k}, 0.05), r0 = normal(DType::f32, {rows}, 0.1, 1), c0 = normal(DType::f32, {k}, 0.1, 1);
  const Tensor scalars = numbers(DType::f32, {lr, 1, clip, scale, 0, 0, 0, 0}), counters = numbers(DType::i32, {static_cast<double>(step), 3, 4, 0, 0, 0, 0, 0});
  Tensor sums0(DType::f32, {2, k});
  std::memset(sums0.data.get(), 0, sums0.bytes());
  const double b2 = 1 - std::pow(step, rate);
  Numbers r, c(static_cast<std::size_t>(k), 0.0), sums;
  const auto at = [&](std::int64_t i, std::int64_t j) { return g[i * k + j] / scale * clip; };
  double mean = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    double q = 0;
    for (std::int64_t j = 0; j < k; ++j) q += at(i, j) * at(i, j) + eps1, c[static_cast<std::size_t>(j)] += at(i, j) * at(i, j) + eps1;
    r.push_back(b2 * r0[i] + (1 - b2) * q / static_cast<double>(k));
    mean += r.back() / static_cast<double>(rows);
  }
  for (std::int64_t j = 0; j < k; ++j) {
    double& x = c[static_cast<std::size_t>(j)];
    sums.push_back(x);
    x = b2 * c0[j] + (1 - b2) * x / static_cast<double>(rows);
  }
  Sums total;
  Numbers u2, p2, u;
  for (std::int64_t i = 0; i < rows; ++i) {
    u2.push_back(0), p2.push_back(0);
    for (std::int64_t j = 0; j < k; ++j) {
      u.push_back(at(i, j) / std::sqrt(r[static_cast<std::size_t>(i)] / mean) / std::sqrt(c[static_cast<std::size_t>(j)]));
      u2.back() += u.back() * u.back(), p2.back() += p[i * k + j] * p[i * k + j];
    }
    total.u2 += u2.back(), total.p2 += p2.back();
  }
  const double eta = lr * std::max(eps2, std::sqrt(total.p2 / count)), cap = std::max(1.0, std::sqrt(total.u2 / count) / d);
  Numbers want;
  for (std::int64_t i = 0; i < rows * k; ++i) want.push_back(p[i] * (1 - eta * decay) - eta * u[static_cast<std::size_t>(i)] / cap);

  const Launch moments{"adalomo_moments", {g, scalars}, {r0, sums0, counters}, {}, {0, rate, eps1, 0, 3, 1}};
  check(moments, {r}, {8, 1e-12});
  for (const Isa& isa : isas()) {
    const std::string name = isa.name;
    const Tensors m = run(isa, moments);
    Numbers got_sums;
    for (std::int64_t j = 0; j < k; ++j) got_sums.push_back(m[1][j] + m[1][k + j]);
    near(name + " adalomo column sums", numbers(DType::f32, got_sums), sums, 60, 0);
    const Tensor column = run(isa, {"adalomo_columns", {m[1], scalars, counters}, {c0}, {}, {static_cast<double>(rows), rate}})[0];
    near(name + " adalomo_columns", column, c, 60, 0);
    const Tensor average = run(isa, {"mean", {m[0]}, {}, {Tensor(DType::f32, {1})}, {}})[0];
    const Launch ratio{"adalomo_ratio", {g, p, m[0], column, average, scalars}, {}, {Tensor(DType::f32, {rows}), Tensor(DType::f32, {rows})}, {0}};
    check(ratio, {u2, p2}, {60, 0});
    const Tensors s = run(isa, ratio);
    for (const double rounding : {0.0, 1.0})
      check({"adalomo_update", {g, m[0], column, average, s[0], s[1], scalars}, {p, counters}, {}, {5, 3, 3, decay, 0, rounding, eps2, d, count}}, {want},
            {(t == DType::f32 ? 4 : 0.51) + 0.5 * rounding, 1e-8});
  }
  Tensor bad = g.copy();
  bad.put(rows * k - 1, NAN);
  for (const Isa& isa : isas()) {
    const Tensors m = run(isa, {"adalomo_moments", {bad, scalars}, {r0, sums0, counters}, {}, {0, rate, eps1, 0, 3, 1}});
    expect(m[0].same(r0) && m[1].same(sums0) && m[2][3] == 1 && m[2][4] == 3, "adalomo_moments: NaN closes the gate and nothing is written");
    const Tensor r1 = numbers(DType::f32, {1});
    expect(run(isa, {"adalomo_update", {g, r0, c0, r1, r1, r1, scalars}, {p, m[2]}, {}, {5, 3, 3, decay, 0, 1, eps2, d, count}})[0].same(p), "adalomo_update: a closed gate");
  }
}

void vector(DType t, std::int64_t n, int step) {
  const double lr = 0.01, rate = -0.8, eps1 = 1e-30, eps2 = 1e-3, decay = 0.1, d = 1, count = static_cast<double>(n), limit = 1.2;
  const Tensor g = normal(DType::f32, {n}), p = normal(t, {n}, 0.05), v0 = normal(DType::f32, {n}, 0.1, 1);
  const Tensor scalars = numbers(DType::f32, {lr, 1, 1, 1, 0, 0, 0, 0}), counters = numbers(DType::i32, {static_cast<double>(step), 3, 4, 0, 0, 0, 0, 0});
  const double b2 = 1 - std::pow(step, rate);
  Numbers v, u, want;
  Sums total;
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = std::min(limit, std::max(-limit, g[i]));
    v.push_back(b2 * v0[i] + (1 - b2) * (x * x + eps1));
    u.push_back(x / std::sqrt(v.back()));
    total.u2 += u.back() * u.back(), total.p2 += p[i] * p[i];
  }
  const double eta = lr * std::max(eps2, std::sqrt(total.p2 / count)), cap = std::max(1.0, std::sqrt(total.u2 / count) / d);
  for (std::int64_t i = 0; i < n; ++i) want.push_back(p[i] * (1 - eta * decay) - eta * u[static_cast<std::size_t>(i)] / cap);
  const Launch moments{"adalomo_vector", {g, scalars}, {v0, counters}, {}, {rate, eps1, limit, 3, 1}};
  check(moments, {v}, {4, 1e-12}, true);
  for (const Isa& isa : isas()) {
    const Tensor second = run(isa, moments)[0], one(DType::f32, {1});
    const Launch ratio{"adalomo_vector_ratio", {g, p, second, scalars}, {}, {one, one}, {limit}};
    check(ratio, {{total.u2}, {total.p2}}, {40, 0}, true);
    const Tensors s = run(isa, ratio);
    check({"adalomo_vector_update", {g, second, s[0], s[1], scalars}, {p, counters}, {}, {5, 2, 3, decay, limit, 0, eps2, d, count}}, {want}, {t == DType::f32 ? 4 : 0.51, 1e-8}, true);
  }
}

}  // namespace

void test_adalomo() {
  for (const DType t : {DType::f32, DType::bf16, DType::f16}) {
    matrix(t, 3, 5, 1);
    matrix(t, 30, 17, 2);
    matrix(t, 540, 133, 7);
    vector(t, 7, 1);
    vector(t, 20001, 5);
  }
}

}  // namespace test
