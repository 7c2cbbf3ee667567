// Stochastic rounding delivers the exact value in expectation, in normals and subnormals, and leaves exact and special values alone.
#include "harness.h"
#include "philox.h"

namespace test {
namespace {

void expectation(DType t, double value, double move) {
  const int seeds = 4096;
  const Tensor p = numbers(t, {value, value, value, value, value}), scalars = numbers(DType::f32, {1, 1, 1, 1, 0, 0, 0, 0});
  const Tensor g = numbers(DType::f32, Numbers(5, move));
  const double exact = static_cast<double>(static_cast<float>(p[0]) - static_cast<float>(g[0])), unit = spacing(exact, t);
  for (const Isa& isa : isas()) {
    double sum = 0;
    bool neighbours = true;
    for (int seed = 0; seed < seeds; ++seed) {
      const Tensor counters = numbers(DType::i32, {1, static_cast<double>(seed), 0, 0, 0, 0, 0, 0});
      const Tensor r = run(isa, {"lomo_update", {g, scalars}, {p, counters}, {}, {0, 6, 0, 0, 0, 1, 0}})[0];
      for (std::int64_t i = 0; i < 5; ++i) {
        sum += r[i] - exact;
        neighbours = neighbours && std::fabs(r[i] - exact) < unit * 1.0001;
      }
    }
    const double share = std::fmod(std::fabs(exact) / unit, 1.0), sigma = unit * std::sqrt(share * (1 - share) / (5.0 * seeds));
    char what[160];
    std::snprintf(what, sizeof what, "%s dtype %d: mean of %.9g over seeds is off by %.3g, sigma %.3g", isa.name, static_cast<int>(t), exact, sum / (5.0 * seeds), sigma);
    expect(std::fabs(sum / (5.0 * seeds)) <= 4 * sigma + 1e-3 * unit * (share != 0), what);
    expect(neighbours, std::string(what) + ": rounds to a neighbour");
  }
}

void specials(DType t) {
  const Numbers values{0, -0.0, 1, -2.5, static_cast<double>(INFINITY), static_cast<double>(-INFINITY), static_cast<double>(NAN), 0x1p-24, -0x1.8p-22, 0x1p-14, 1024};
  const Tensor p = numbers(t, values), g = numbers(DType::f32, Numbers(values.size(), 0.0)), scalars = numbers(DType::f32, {1, 1, 1, 1, 0, 0, 0, 0});
  for (int seed = 0; seed < 200; ++seed) {
    const Tensor counters = numbers(DType::i32, {1, static_cast<double>(seed), 0, 0, 0, 0, 0, 0});
    for (const Isa& isa : isas()) {
      if (t == DType::f16 && seed > 0) continue;  // infinities in f16 weights close the gate: once is enough
      near(std::string(isa.name) + " exact values stay", run(isa, {"lomo_update", {g, scalars}, {p, counters}, {}, {0, 0, 0, 0, 0, 1, 0}})[0], values, 0, 0);
    }
  }
}

// f16, bit by bit: 13 low bits of the word below the kept ones of a normal; word / 2^32 against the fraction of a subnormal.
void f16_bits() {
  const std::int64_t n = 4000;
  const Tensor scalars = numbers(DType::f32, {1, 1, 1, 1, 0, 0, 0, 0}), counters = numbers(DType::i32, {8, 21, 22, 0, 0, 0, 0, 0});
  Tensor g(DType::f32, {n}), p(DType::f16, {n});
  Numbers want;
  for (std::int64_t i = 0; i < n; ++i) {
    p.put(i, 0);
    g.put(i, -std::ldexp(1 + static_cast<double>(i) / n, -34 + static_cast<int>(i % 40)) * (i % 3 == 0 ? -1 : 1));
    const double x = -g[i], size = std::fabs(x), unit = spacing(x, DType::f16), whole = std::floor(size / unit), fraction = size / unit - whole;
    const std::uint32_t word = philox({21, 22}, {static_cast<std::uint32_t>(i / 4), 0, 8, 0})[static_cast<std::size_t>(i % 4)];
    const bool up = size < 0x1p-14 ? word * 0x1p-32 < fraction : fraction + (word & 0x1fff) * 0x1p-13 >= 1;
    want.push_back((x < 0 ? -1 : 1) * (whole + up) * unit);
  }
  check({"lomo_update", {g, scalars}, {p, counters}, {}, {0, 0, 0, 0, 0, 1, 0}}, {want}, {0, 0}, true);
}

}  // namespace

void test_rounding() {
  f16_bits();
  for (const DType t : {DType::bf16, DType::f16}) {
    expectation(t, 1.0, 1e-4);
    expectation(t, -0.75, 3e-5);
    expectation(t, 0.0, 1.23e-4);
    expectation(t, 0.0, -3.3e-7);
    expectation(t, 3e-5, 1e-8);
    expectation(t, 6.0e-5, -1.3e-6);
    expectation(t, 1.0, 0.25);
    specials(t);
  }
  expectation(DType::f16, 2000.0, 0.3);
  expectation(DType::bf16, 1e30, -1e27);
  expectation(DType::bf16, 0.0, 1e-39);
}

}  // namespace test
