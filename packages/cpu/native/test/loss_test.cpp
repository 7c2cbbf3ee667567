// Cross entropy whole and by vocabulary tiles, sampling, and the normal numbers, against double-precision references.
#include <algorithm>

#include "harness.h"

namespace test {
namespace {

struct Loss { Numbers loss, lse, gradient, same; };

Loss reference(const Tensor& logits, const Tensor& targets, std::int64_t rows, std::int64_t n, double scale) {
  Loss r;
  for (std::int64_t i = 0; i < rows; ++i) {
    double top = -INFINITY, total = 0;
    for (std::int64_t j = 0; j < n; ++j) top = std::max(top, logits[i * n + j]);
    for (std::int64_t j = 0; j < n; ++j) total += std::exp(logits[i * n + j] - top);
    const auto target = static_cast<std::int64_t>(targets[i]);
    r.lse.push_back(top + std::log(total));
    r.loss.push_back(target < 0 ? 0 : r.lse.back() - logits[i * n + target]);
    for (std::int64_t j = 0; j < n; ++j) {
      r.same.push_back(logits[i * n + j]);
      r.gradient.push_back(target < 0 ? 0 : (std::exp(logits[i * n + j] - top) / total - (j == target)) * scale);
    }
  }
  return r;
}

void cross_entropy(std::int64_t rows, std::int64_t n, double spread) {
  const Tensor logits = normal(DType::f32, {rows, n}, spread);
  const Tensor targets = integers({rows}, -1, static_cast<int>(n) - 1), scalars = numbers(DType::f32, {0.1, 0.25, 1, 8, 0, 0, 0, 0});
  const Tensor row(DType::f32, {rows});
  const Loss want = reference(logits, targets, rows, n, 2.0);
  check({"cross_entropy", {targets, scalars}, {logits}, {row, row}, {1}}, {want.gradient, want.loss, want.lse}, {40, 1e-7});
  check({"cross_entropy", {targets, scalars}, {logits}, {row, row}, {0}}, {want.same, want.loss, want.lse}, {2, 1e-6});
  const std::int64_t cut = n / 3;
  for (const Isa& isa : isas()) {
    Tensor left(DType::f32, {rows, cut}), right(DType::f32, {rows, n - cut});
    for (std::int64_t i = 0; i < rows * n; ++i) {
      if (i % n < cut) left.put(i / n * cut + i % n, logits[i]);
      else right.put(i / n * (n - cut) + i % n - cut, logits[i]);
    }
    Tensor stats(DType::f32, {rows, 3});
    if (cut > 0) stats = run(isa, {"cross_entropy_tile", {targets, left}, {stats}, {}, {0}})[0];
    stats = run(isa, {"cross_entropy_tile", {targets, right}, {stats}, {}, {static_cast<double>(cut)}})[0];
    const Tensors finished = run(isa, {"cross_entropy_finish", {stats, targets}, {}, {row, row}, {}});
    near(std::string(isa.name) + " tiled loss", finished[0], want.loss, 4, 2e-6);
    near(std::string(isa.name) + " tiled lse", finished[1], want.lse, 2, 1e-6);
    const Tensor grad = run(isa, {"cross_entropy_grad", {targets, finished[1], scalars}, {right}, {}, {static_cast<double>(cut)}})[0];
    Numbers part;
    for (std::int64_t i = 0; i < rows * n; ++i)
      if (i % n >= cut) part.push_back(want.gradient[static_cast<std::size_t>(i)]);
    near(std::string(isa.name) + " tiled gradient", grad, part, 80, 1e-6);
    expect(grad.same(run(isa, {"cross_entropy_grad", {targets, finished[1], scalars}, {right}, {}, {static_cast<double>(cut)}}, 4)[0]), "cross_entropy_grad on 4 threads");
  }
}

// Logits of -inf, blocks of them first, have no share and no gradient; where all are, the loss is no number.
void masked_losses(std::int64_t n, std::int64_t dead) {
  Tensor logits = normal(DType::f32, {2, n});
  for (std::int64_t i = 0; i < 2 * n; ++i)
    if (i % n < dead) logits.put(i, -INFINITY);
  const auto last = static_cast<double>(n - 1);
  const Tensor targets = numbers(DType::i32, {last, last}), scalars = numbers(DType::f32, {0.1, 0.25, 1, 8, 0, 0, 0, 0}), row(DType::f32, {2});
  const Loss want = reference(logits, targets, 2, n, 2.0);
  check({"cross_entropy", {targets, scalars}, {logits}, {row, row}, {1}}, {want.gradient, want.loss, want.lse}, {40, 1e-7});
  for (const Isa& isa : isas()) {
    const std::string name = std::string(isa.name) + ", " + std::to_string(dead) + " of " + std::to_string(n) + " logits -inf: ";
    near(name + "loss alone", run(isa, {"cross_entropy", {targets, scalars}, {logits}, {row, row}, {0}})[1], want.loss, 2, 1e-6);
    const Tensor stats = run(isa, {"cross_entropy_tile", {targets, logits}, {Tensor(DType::f32, {2, 3})}, {}, {0}})[0];
    near(name + "tiled", run(isa, {"cross_entropy_finish", {stats, targets}, {}, {row, row}, {}})[0], want.loss, 4, 2e-6);
    Tensor none = logits.copy();
    for (std::int64_t i = 0; i < 2 * n; ++i) none.put(i, -INFINITY);
    for (const double grad : {0.0, 1.0})
      expect(std::isnan(run(isa, {"cross_entropy", {targets, scalars}, {none}, {row, row}, {grad}})[1][0]), name + "all of them is no loss");
    Tensor bad = logits.copy();
    bad.put(0, static_cast<double>(NAN));
    for (const double grad : {0.0, 1.0})
      expect(!std::isfinite(run(isa, {"cross_entropy", {targets, scalars}, {bad}, {row, row}, {grad}})[1][0]), name + "a NaN among them shows");
  }
}

void bad_losses() {
  const Tensor scalars = numbers(DType::f32, {0.1, 1, 1, 1, 0, 0, 0, 0}), row(DType::f32, {1});
  for (const Isa& isa : isas()) {
    for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      Tensor logits = normal(DType::f32, {1, 100});
      logits.put(97, bad);
      expect(!std::isfinite(run(isa, {"cross_entropy", {numbers(DType::i32, {3}), scalars}, {logits}, {row, row}, {1}})[1][0]), "cross_entropy: a bad logit shows in the loss");
    }
    Tensor masked = normal(DType::f32, {1, 100});
    for (std::int64_t i = 0; i < 50; ++i) masked.put(i, -INFINITY);
    const Tensors r = run(isa, {"cross_entropy", {numbers(DType::i32, {70}), scalars}, {masked}, {row, row}, {1}});
    expect(std::isfinite(r[1][0]) && r[0][0] == 0, "cross_entropy: logits of -inf have no share");
    expect(thrown(isa, {"cross_entropy", {numbers(DType::i32, {100}), scalars}, {masked}, {row, row}, {1}}) == "BadId", "cross_entropy: a bad target is an error");
  }
}

void sampling() {
  const std::int64_t n = 5000, rows = 400;
  Tensor logits(DType::f32, {rows, n});
  const Tensor one = normal(DType::f32, {n}, 2);
  for (std::int64_t i = 0; i < rows * n; ++i) logits.put(i, one[i % n]);
  for (std::int64_t r = 0; r < rows; ++r) logits.put(r * n + 4321, 9).put(r * n + 99, 9);
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) order[static_cast<std::size_t>(i)] = i;
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  const Tensor counters = numbers(DType::i32, {7, 12345, 67, 0, 0, 0, 0, 0}), ids(DType::i32, {rows});
  check({"sample", {logits, counters}, {}, {ids}, {0, 0, 1, 0}}, {Numbers(static_cast<std::size_t>(rows), 99)}, {0, 0}, true);
  struct Setting { double temperature, top_k, top_p; };
  for (const auto& s : {Setting{1, 0, 1}, Setting{0.7, 8, 1}, Setting{1, 0, 0.5}, Setting{1.5, 50, 0.9}, Setting{1, 1, 1}, Setting{1, 0, 1e-9}}) {
    std::int64_t kept = s.top_k > 0 ? static_cast<std::int64_t>(s.top_k) : n;
    Numbers p;
    double total = 0, mass = 0;
    for (std::int64_t i = 0; i < kept; ++i) p.push_back(std::exp((logits[order[static_cast<std::size_t>(i)]] - 9) / s.temperature)), total += p.back();
    std::int64_t k = 0;
    while (k < kept && (k == 0 || mass < s.top_p * total)) mass += p[static_cast<std::size_t>(k++)];
    for (const Isa& isa : isas()) {
      Numbers seen(static_cast<std::size_t>(n), 0.0);
      std::int64_t draws = 0;
      bool within = true;
      for (int draw = 0; draw < 5; ++draw) {
        const Tensor got = run(isa, {"sample", {logits, counters}, {}, {ids}, {s.temperature, s.top_k, s.top_p, static_cast<double>(draw)}})[0];
        for (std::int64_t r = 0; r < rows; ++r, ++draws) {
          const auto place = std::find(order.begin(), order.begin() + k, static_cast<std::int64_t>(got[r])) - order.begin();
          within = within && place < k;
          if (place < k) seen[static_cast<std::size_t>(place)] += 1;
        }
      }
      expect(within, std::string(isa.name) + " sample stays within top_k and top_p");
      const double share = p[0] / mass, sigma = std::sqrt(share * (1 - share) / static_cast<double>(draws));
      expect(std::fabs(seen[0] / static_cast<double>(draws) - share) <= 4.5 * sigma + 1e-12, std::string(isa.name) + " sample draws the largest by its share");
    }
  }
}

void normal_numbers() {
  const std::int64_t n = 200003;
  for (const Isa& isa : isas()) {
    const Launch l{"normal_fill", {}, {Tensor(DType::f32, {n})}, {}, {77, 5000000000.0, 0.5, 2}};
    const Tensor x = run(isa, l)[0];
    double mean = 0, squares = 0, cubes = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double z = (x[i] - 0.5) / 2;
      mean += z, squares += z * z, cubes += z * z * z;
    }
    const double count = static_cast<double>(n);
    expect(std::fabs(mean / count) < 5 / std::sqrt(count) && std::fabs(squares / count - 1) < 8 / std::sqrt(count) && std::fabs(cubes / count) < 20 / std::sqrt(count), "normal_fill: moments");
    expect(x.same(run(isa, l, 3)[0]), "normal_fill on 3 threads");
  }
  // seed 42, key 0, element 0 and 1: the words are philox((42, 0), (i, 0, 0, 1)).
  check({"normal_fill", {}, {Tensor(DType::f32, {40000})}, {}, {0, 42, 0, 1}}, {}, {});
}

}  // namespace

void test_loss() {
  cross_entropy(1, 2, 1);
  cross_entropy(5, 17, 3);
  cross_entropy(9, 2048, 2);
  cross_entropy(7, 5003, 30);
  cross_entropy(64, 1000, 1);
  bad_losses();
  for (const std::int64_t dead : {100, 2048, 4096}) masked_losses(4500, dead);
  sampling();
  normal_numbers();
}

}  // namespace test
