// Forward and backward kernels of the model, but for the loss, against plain double-precision loops.
#include "harness.h"

namespace test {
namespace {

constexpr DType reals[] = {DType::f32, DType::bf16};

double silu(double g) { return g / (1 + std::exp(-g)); }

void elementwise(DType t, std::int64_t n) {
  const Tensor a = normal(t, {n}), b = normal(t, {n}), d = normal(t, {n});
  Numbers add, mul, scaled, y, dgate, dup;
  for (std::int64_t i = 0; i < n; ++i) {
    const double s = 1 / (1 + std::exp(-a[i]));
    add.push_back(a[i] + b[i]);
    mul.push_back(a[i] * b[i]);
    scaled.push_back(a[i] * 0.125);
    y.push_back(silu(a[i]) * b[i]);
    dgate.push_back(d[i] * b[i] * s * (1 + a[i] * (1 - s)));
    dup.push_back(d[i] * silu(a[i]));
  }
  const Tensor out(t, {n});
  const double rounding = 0.501;
  check({"add", {a, b}, {}, {out}, {}}, {add}, {rounding, 0}, true);
  check({"add_into", {b}, {a}, {}, {}}, {add}, {rounding, 0}, true);
  check({"mul", {a, b}, {}, {out}, {}}, {mul}, {rounding, 0}, true);
  check({"scale", {a}, {}, {out}, {0.125}}, {scaled}, {rounding, 0}, true);
  const double units = t == DType::f32 ? 4 : 0.51;
  check({"silu_mul", {a, b}, {}, {out}, {}}, {y}, {units, 0});
  check({"silu_mul_backward", {a, b, d}, {}, {out, out}, {}}, {dgate, dup}, {units, 1e-6});
}

void rms_norm(DType t, std::int64_t rows, std::int64_t h, std::int64_t start) {
  const Tensor x = normal(t, {rows, h}), w = normal(t, {h}, 0.2, 1), dy = normal(t, {rows, h});
  Tensor sums = normal(DType::f32, {2, h}), rstd(DType::f32, {rows});
  const double eps = 1e-5;
  Numbers y, r, dx, closed, open;
  for (std::int64_t j = 0; j < h; ++j) closed.push_back(sums[j]), open.push_back(sums[h + j]);
  for (std::int64_t i = 0; i < rows; ++i) {
    double squares = 0, dot = 0;
    for (std::int64_t j = 0; j < h; ++j) squares += x[i * h + j] * x[i * h + j];
    r.push_back(1 / std::sqrt(squares / static_cast<double>(h) + eps));
    rstd.put(i, r.back());
    for (std::int64_t j = 0; j < h; ++j) dot += dy[i * h + j] * w[j] * x[i * h + j];
    const bool close = (start + i) % 512 == 0 && start + i != 0;
    for (std::int64_t j = 0; j < h; ++j) {
      y.push_back(x[i * h + j] * r.back() * w[j]);
      dx.push_back(r.back() * dy[i * h + j] * w[j] - x[i * h + j] * dot * std::pow(r.back(), 3) / static_cast<double>(h));
      const auto c = static_cast<std::size_t>(j);
      if (close) closed[c] += open[c], open[c] = 0;
      open[c] += dy[i * h + j] * x[i * h + j] * rstd[i];
    }
  }
  closed.insert(closed.end(), open.begin(), open.end());
  const double units = t == DType::f32 ? 3 : 0.51;
  check({"rms_norm", {x, w}, {}, {Tensor(t, {rows, h}), Tensor(DType::f32, {rows})}, {eps}}, {y, r}, {units, 1e-6});
  const Launch backward{"rms_norm_backward", {x, w, rstd, dy}, {sums}, {Tensor(t, {rows, h})}, {static_cast<double>(start)}};
  check(backward, {closed, {}}, {3, 1e-4});  // up to 512 terms added in f32
  check(backward, {{}, dx}, {units, 2e-6});
}

void token_sum(DType t, std::int64_t rows, std::int64_t n, std::int64_t start) {
  const Tensor x = normal(t, {rows, n}), sums = normal(DType::f32, {2, n});
  Tensor want = sums.copy();  // f32 in the stated order: every bit is defined
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      if ((start + i) % 512 == 0 && start + i != 0) want.put(j, want[j] + want[n + j]).put(n + j, 0);
      want.put(n + j, want[n + j] + x[i * n + j]);
    }
  Numbers w, value;
  for (std::int64_t j = 0; j < 2 * n; ++j) w.push_back(want[j]);
  for (std::int64_t j = 0; j < n; ++j) value.push_back(want[j] + want[n + j]);
  check({"token_sum", {x}, {sums}, {}, {static_cast<double>(start)}}, {w}, {0, 0}, true);
  check({"sums_value", {want}, {}, {Tensor(DType::f32, {n})}, {}}, {value}, {0.501, 0}, true);
  // One launch and two launches leave the same bits.
  if (rows < 3) return;
  const std::int64_t cut = rows / 3;
  Tensor head(t, {cut, n}), tail(t, {rows - cut, n});
  std::memcpy(head.data.get(), x.data.get(), head.bytes());
  std::memcpy(tail.data.get(), x.at(cut * n), tail.bytes());
  for (const Isa& isa : isas()) {
    const Tensor first = run(isa, {"token_sum", {head}, {sums}, {}, {static_cast<double>(start)}})[0];
    expect(run(isa, {"token_sum", {tail}, {first}, {}, {static_cast<double>(start + cut)}})[0].same(want), std::string(isa.name) + " token_sum in two launches");
  }
}

void rope(DType t, std::int64_t tokens, std::int64_t heads, std::int64_t d, std::int64_t r) {
  const Tensor x = normal(t, {tokens, heads, d}), positions = integers({tokens}, 0, 200000);
  Tensor frequency(DType::f32, {r});
  for (std::int64_t j = 0; j < r; ++j) frequency.put(j, std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(r)));
  for (const double inverse : {0.0, 1.0}) {
    Numbers y(static_cast<std::size_t>(x.count()));
    for (std::int64_t i = 0; i < tokens * heads; ++i)
      for (std::int64_t j = 0; j < d; ++j) {
        const double angle = (inverse != 0 ? -1 : 1) * positions[i / heads] * frequency[j % r], other = x[i * d + (j < r ? j + r : j - r < d ? j - r : j)];
        const auto at = static_cast<std::size_t>(i * d + j);
        if (j < r) y[at] = 1.5 * (x[i * d + j] * std::cos(angle) - other * std::sin(angle));
        else if (j < 2 * r) y[at] = 1.5 * (x[i * d + j] * std::cos(angle) + other * std::sin(angle));
        else y[at] = x[i * d + j];
      }
    check({"rope", {x, positions, frequency}, {}, {Tensor(t, x.shape)}, {1.5, inverse}}, {y}, {t == DType::f32 ? 2 : 0.51, 1.5e-6});
  }
}

void embedding(DType t, std::int64_t tokens, std::int64_t h, std::int64_t vocabulary) {
  const Tensor w = normal(t, {vocabulary, h}), ids = integers({tokens}, 0, static_cast<int>(vocabulary) - 1), dy = normal(t, {tokens, h});
  Numbers y;
  for (std::int64_t i = 0; i < tokens; ++i)
    for (std::int64_t j = 0; j < h; ++j) y.push_back(w[static_cast<std::int64_t>(ids[i]) * h + j]);
  check({"embedding", {ids, w}, {}, {Tensor(t, {tokens, h})}, {}}, {y}, {0, 0}, true);
  const std::int64_t row = vocabulary / 4, rows = vocabulary / 2;
  const Tensor g = normal(DType::f32, {rows, h});
  Tensor want = g.copy();
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::int64_t to = static_cast<std::int64_t>(ids[i]) - row;
    for (std::int64_t j = 0; j < h && to >= 0 && to < rows; ++j) want.put(to * h + j, want[to * h + j] + dy[i * h + j]);
  }
  Numbers expected;
  for (std::int64_t i = 0; i < want.count(); ++i) expected.push_back(want[i]);
  check({"embedding_grad_add", {ids, dy}, {g}, {}, {static_cast<double>(row)}}, {expected}, {0, 0}, true);
  for (const int bad : {-1, static_cast<int>(vocabulary)})
    for (const Isa& isa : isas())
      expect(thrown(isa, {"embedding", {integers({3}, bad, bad), w}, {}, {Tensor(t, {3, h})}, {}}) == "BadId", "embedding: a bad id is an error");
}

void casts() {
  for (const DType from : {DType::f32, DType::bf16, DType::f16})
    for (const DType to : {DType::f32, DType::bf16, DType::f16})
      for (const std::int64_t n : {1, 17, 100001}) {
        const Tensor x = normal(from, {n}, 3);
        Tensor want(to, {n});
        Numbers w;
        for (std::int64_t i = 0; i < n; ++i) w.push_back(want.put(i, x[i])[i]);
        check({"cast", {x}, {}, {want}, {}}, {w}, {0, 0}, true);
      }
  for (const DType t : {DType::f32, DType::bf16, DType::f16, DType::i32, DType::u8})
    for (const std::int64_t n : {1, 31, 300007}) check({"fill", {}, {Tensor(t, {n})}, {}, {3}}, {Numbers(static_cast<std::size_t>(n), 3.0)}, {0, 0}, true);
}

void cache_write() {
  const Tensor x = normal(DType::bf16, {3, 2, 5}), cache = normal(DType::bf16, {7, 2, 5});
  Numbers want;
  for (std::int64_t i = 0; i < 70; ++i) want.push_back(i >= 40 ? x[i - 40] : cache[i]);
  check({"cache_write", {x, numbers(DType::i32, {4})}, {cache}, {}, {}}, {want}, {0, 0}, true);
  for (const Isa& isa : isas()) expect(thrown(isa, {"cache_write", {x, numbers(DType::i32, {5})}, {cache}, {}, {}}) == "CacheFull", "cache_write: past the end is an error");
}

}  // namespace

void test_forward() {
  for (const DType t : reals) {
    for (const std::int64_t n : {1, 15, 16, 33, 1000, 70001}) elementwise(t, n);
    for (const auto& [rows, h, start] : std::vector<std::array<std::int64_t, 3>>{{1, 1, 0}, {3, 17, 511}, {70, 64, 0}, {600, 100, 1000}, {130, 1031, 448}, {33, 4096, 512}}) rms_norm(t, rows, h, start);
    for (const auto& [rows, n, start] : std::vector<std::array<std::int64_t, 3>>{{1, 1, 0}, {1, 5, 512}, {1030, 3, 0}, {700, 130, 300}, {1100, 1000, 1535}}) token_sum(t, rows, n, start);
    rope(t, 3, 2, 8, 4);
    rope(t, 5, 1, 20, 7);
    rope(t, 90, 6, 64, 32);
    rope(t, 7, 3, 100, 20);
    embedding(t, 5, 3, 8);
    embedding(t, 300, 515, 40);
  }
  casts();
  cache_write();
}

}  // namespace test
