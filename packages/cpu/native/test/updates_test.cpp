// LOMO's and AdamW's update, the gate, the norm and its coefficient, against double-precision references.
#include "harness.h"
#include "philox.h"

namespace test {
namespace {

Tensor step_scalars(double lr, double clip, double scale) { return numbers(DType::f32, {lr, 1, clip, scale, 0, 0, 0, 0}); }
Tensor step_counters(int step, int gate = 0) { return numbers(DType::i32, {static_cast<double>(step), 1234567, -5, static_cast<double>(gate), 0, 0, 0, 0}); }

double effective(double g, double scale, double limit, double clip) {
  g /= scale;
  if (limit > 0) g = std::min(limit, std::max(-limit, g));
  return g * clip;
}

Numbers all(const Tensor& t) {
  Numbers r;
  for (std::int64_t i = 0; i < t.count(); ++i) r.push_back(t[i]);
  return r;
}

void lomo(DType t, std::int64_t rows, std::int64_t k, double limit, double scale) {
  const Tensor g = normal(DType::f32, {rows, k}, 3), p = normal(t, {rows, k});
  const Tensor scalars = step_scalars(0.03, 0.75, scale), counters = step_counters(3);
  const double decay = 0.1;
  Numbers want;
  for (std::int64_t i = 0; i < rows * k; ++i) want.push_back(p[i] * (1 - scalars[0] * decay) - scalars[0] * effective(g[i], scale, limit, 0.75));
  const auto launch = [&](double rounding, double element) { return Launch{"lomo_update", {g, scalars}, {p, counters}, {}, {9, element, 4, decay, limit, rounding, 1}}; };
  const double units = t == DType::f32 ? 1.5 : 0.51;
  check(launch(0, 0), {want, all(counters)}, {units, 1e-7}, true);
  // Stochastic: one of the two neighbours, and the same bits whatever the tiling.
  for (const double element : {0.0, 3.0, 8589934597.0}) check(launch(1, element), {want}, {1.001 + (t == DType::f32 ? 1 : 0), 1e-7}, true);
  if (rows < 3) return;
  for (const Isa& isa : isas()) {
    const Tensor whole = run(isa, launch(1, 5))[0];
    const std::int64_t cut = rows / 3;
    Tensor gt(DType::f32, {rows - cut, k}), pt(t, {rows - cut, k}), wanted(t, {rows - cut, k});
    std::memcpy(gt.data.get(), g.at(cut * k), gt.bytes());
    std::memcpy(pt.data.get(), p.at(cut * k), pt.bytes());
    std::memcpy(wanted.data.get(), whole.at(cut * k), wanted.bytes());
    const Tensor tile = run(isa, {"lomo_update", {gt, scalars}, {pt, counters}, {}, {9, static_cast<double>(5 + cut * k), 4, decay, limit, 1, 0}})[0];
    expect(tile.same(wanted), std::string(isa.name) + " lomo_update: a tile equals its part of the whole");
  }
}

// The random word of an element and the bits it rounds to, by the scalar generator.
void lomo_bits() {
  const std::int64_t n = 1000;
  const Tensor g = normal(DType::f32, {1, n}), p = normal(DType::bf16, {1, n}), scalars = step_scalars(0.01, 1, 1), counters = step_counters(3);
  Numbers want;
  const std::uint64_t element = 17179869184000ull + 7;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint64_t at = element + static_cast<std::uint64_t>(i);
    const auto words = philox({1234567u, static_cast<std::uint32_t>(-5) ^ 99u}, {static_cast<std::uint32_t>(at / 4), static_cast<std::uint32_t>(at / 4 >> 32), 3, 0});
    const float exact = static_cast<float>(p[i]) * 1.0f - static_cast<float>(g[i]) * 0.01f;
    std::uint32_t u;
    std::memcpy(&u, &exact, 4);
    u = (u + (words[at % 4] & 0xffffu)) & 0xffff0000u;
    float f;
    std::memcpy(&f, &u, 4);
    want.push_back(f);
  }
  check({"lomo_update", {g, scalars}, {p, counters}, {}, {99, static_cast<double>(element), 0, 0, 0, 1, 0}}, {want}, {0, 0}, true);
}

void adamw(DType t, std::int64_t n, int step) {
  const Tensor g = normal(DType::f32, {n}), p = normal(t, {n}), m = normal(DType::f32, {n}, 0.1), scalars = step_scalars(0.01, 0.5, 4), counters = step_counters(step);
  Tensor v = normal(DType::f32, {n}, 0.1);
  for (std::int64_t i = 0; i < n; ++i) v.put(i, v[i] * v[i]);
  const double b1 = 0.9, b2 = 0.95, eps = 1e-8, decay = 0.1;
  Numbers wp, wm, wv;
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = effective(g[i], 4, 0, 0.5);
    wm.push_back(b1 * m[i] + (1 - b1) * x);
    wv.push_back(b2 * v[i] + (1 - b2) * x * x);
    wp.push_back(p[i] * (1 - scalars[0] * decay) - scalars[0] * (wm.back() / (1 - std::pow(b1, step))) / (std::sqrt(wv.back() / (1 - std::pow(b2, step))) + eps));
  }
  const Numbers attributes{9, 3, 4, decay, 0, 0, 1, b1, b2, eps};
  check({"adamw_update", {g, scalars}, {p, m, v, counters}, {}, attributes}, {wp, wm, wv, all(counters)}, {t == DType::f32 ? 2 : 0.51, 1e-7}, true);
}

void gates() {
  for (const std::int64_t n : {5, 40001})
    for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), static_cast<double>(-INFINITY)}) {
      Tensor g = normal(DType::f32, {1, n});
      const Tensor p = normal(DType::bf16, {1, n}), m = normal(DType::f32, {1, n}), v = normal(DType::f32, {1, n}), scalars = step_scalars(0.1, 1, 1), open = step_counters(2), closed = step_counters(2, 1);
      check({"gate_check", {g}, {open}, {}, {7}}, {all(open)}, {0, 0});
      check({"lomo_update", {g, scalars}, {p, closed}, {}, {0, 0, 6, 0, 0, 1, 1}}, {all(p), all(closed)}, {0, 0});
      check({"adamw_update", {g, scalars}, {p, m, v, closed}, {}, {0, 0, 6, 0, 0, 1, 1, 0.9, 0.9, 1e-8}}, {all(p), all(m), all(v), all(closed)}, {0, 0});
      g.put(n - 2, bad);
      Numbers shut = all(open);
      shut[3] = 1;
      shut[4] = 7;
      check({"gate_check", {g}, {open}, {}, {7}}, {shut}, {0, 0});
      check({"gate_check", {g}, {closed}, {}, {7}}, {all(closed)}, {0, 0});  // the first to close it stays named
      check({"lomo_update", {g, scalars}, {p, open}, {}, {0, 0, 7, 0, 0, 1, 1}}, {all(p), shut}, {0, 0});
      check({"adamw_update", {g, scalars}, {p, m, v, open}, {}, {0, 0, 7, 0, 0, 1, 1, 0.9, 0.9, 1e-8}}, {all(p), all(m), all(v), shut}, {0, 0});
      check({"gate_loss", {numbers(DType::f32, {1, bad})}, {open}, {}, {7}}, {shut}, {0, 0});
      check({"gate_loss", {numbers(DType::f32, {1, 2})}, {open}, {}, {7}}, {all(open)}, {0, 0});
    }
  // f16 may not leave 65504: nothing is written, the gate closes.
  Tensor g = normal(DType::f32, {1, 100}), p = normal(DType::f16, {1, 100});
  p.put(98, 65504);
  g.put(98, -10);
  const Tensor scalars = step_scalars(1, 1, 1), open = step_counters(2);
  Numbers shut = all(open);
  shut[3] = 1;
  shut[4] = 7;
  check({"lomo_update", {g, scalars}, {p, open}, {}, {0, 0, 7, 0, 0, 1, 0}}, {all(p), shut}, {0, 0});
}

void norms() {
  for (const std::int64_t k : {1, 33, 9001}) {
    const std::int64_t rows = 11;
    const Tensor g = normal(DType::f32, {rows, k}, 100);
    Numbers s;
    for (std::int64_t i = 0; i < rows; ++i) {
      s.push_back(0);
      for (std::int64_t j = 0; j < k; ++j) s.back() += g[i * k + j] * g[i * k + j];
    }
    check({"sum_squares", {g}, {}, {Tensor(DType::f32, {rows})}, {}}, {s}, {0.501, 0}, true);
  }
  const Tensor s = normal(DType::f32, {1000}, 1e5, 1e6), scalars = step_scalars(0.1, 1, 4), counters = step_counters(1);
  double total = 3e7;
  for (std::int64_t i = 0; i < 1000; ++i) total += s[i];
  const Tensor start = numbers(DType::f32, {3e7, 0});
  for (const Isa& isa : isas()) {
    const Tensor got = run(isa, {"norm_add", {s}, {start}, {}, {}})[0];
    expect(std::fabs(got[0] + got[1] - total) < 1e-14 * total, "norm_add keeps a double");
    const Tensors r = run(isa, {"clip_coefficient", {got}, {scalars, counters}, {}, {10, 5}});
    expect(std::fabs(r[0][2] - 10 / (std::sqrt(total) / 4 + 1e-6)) < 1e-7 * r[0][2] && r[1].same(counters), "clip_coefficient");
    expect(run(isa, {"clip_coefficient", {got}, {scalars, counters}, {}, {1e9, 5}})[0][2] == 1, "clip_coefficient never amplifies");
    const Tensors bad = run(isa, {"clip_coefficient", {numbers(DType::f32, {INFINITY, 0})}, {scalars, counters}, {}, {10, 5}});
    expect(bad[1][3] == 1 && bad[1][4] == 5, "clip_coefficient: an infinite norm closes the gate");
  }
  check({"mean", {s}, {}, {Tensor(DType::f32, {1})}, {}}, {{(total - 3e7) / 1000}}, {0.501, 0}, true);
}

}  // namespace

void test_updates() {
  for (const DType t : {DType::f32, DType::bf16, DType::f16}) {
    lomo(t, 1, 1, 0, 1);
    lomo(t, 7, 13, 1.5, 1);
    lomo(t, 64, 701, 0, 3);
    adamw(t, 5, 1);
    adamw(t, 30011, 10);
  }
  lomo_bits();
  gates();
  norms();
}

}  // namespace test
