// Accuracy of the vector functions and conversions of one instruction set against libm in double precision; compiled once for each.
#include <cmath>
#include <cstdio>

#include "../simd/math.h"
#include "../simd/philox.h"
#include "../simd/storage.h"

namespace test { void expect_from_simd(bool ok, const char* what); }

namespace lomo::LOMO_ISA {
void test_simd(const char* name);
namespace {

struct Worst {
  double units = 0;
  void see(float got, double want) {
    const float w = std::fabs(static_cast<float>(want));
    const double unit = static_cast<double>(std::nextafterf(w, INFINITY)) - static_cast<double>(w);
    const double e = std::fabs(static_cast<double>(got) - want) / unit;
    if (!(e <= units)) units = e;
  }
};

void report(const char* isa, const char* what, bool ok, double measured) {
  char text[128];
  std::snprintf(text, sizeof text, "%s %s: %g", isa, what, measured);
  ::test::expect_from_simd(ok, text);
}

}  // namespace

void test_simd(const char* name) {
  Worst e, l, s, n;
  for (int i = 0; i < 300000; ++i) {
    const float x = -87.0f + static_cast<float>(i) * (175.5f / 300000.0f);
    e.see(exp(f32x16(x))[i % 16], std::exp(static_cast<double>(x)));
    s.see(sigmoid(f32x16(x * 0.2f))[i % 16], 1.0 / (1.0 + std::exp(-static_cast<double>(x * 0.2f))));
    const float y = std::exp2(-126.0f + static_cast<float>(i) * (253.0f / 300000.0f));
    l.see(log(f32x16(y))[i % 16], std::log(static_cast<double>(y)));
    const float f = -0.29f + static_cast<float>(i) * (0.7f / 300000.0f);
    n.see(log1p_near(f32x16(f))[i % 16], std::log1p(static_cast<double>(f)));
  }
  report(name, "exp units", e.units < 2, e.units);
  report(name, "sigmoid units", s.units < 3, s.units);
  report(name, "log units", l.units < 2, l.units);
  report(name, "log1p units", n.units < 2, n.units);
  double angle_error = 0;
  for (int i = 0; i < 300000; ++i) {
    const double a = (i - 150000) * 7.7312;
    const sincos16 sc = sincos(f64x16(a));
    angle_error = std::fmax(angle_error, std::fmax(std::fabs(sc.sin[i % 16] - std::sin(a)), std::fabs(sc.cos[i % 16] - std::cos(a))));
  }
  report(name, "sincos error", angle_error < 1.2e-7, angle_error);
  const float inf = INFINITY;
  report(name, "exp at the ends", exp(f32x16(inf))[0] == inf && exp(f32x16(-inf))[0] == 0 && exp(f32x16(NAN))[0] != exp(f32x16(NAN))[0] && exp(f32x16(-103.0f))[0] == 0x1p-149f, 0);

  int wrong = 0;
  for (int h = 0; h < 65536; ++h) {
    f16 in[lanes], out[lanes];
    bf16 back[lanes];
    for (auto& x : in) x.bits = static_cast<std::uint16_t>(h);
    const f32x16 v = load(in);
    _Float16 want;
    std::memcpy(&want, in, 2);
    const float w = static_cast<float>(want), own = f16_value(static_cast<std::uint16_t>(h));
    store(out, v);
    if (w != w) wrong += !(v[3] != v[3]) + !(own != own);
    else wrong += (v[3] != w) + (own != w) + (out[5].bits != h) + (f16_bits(w) != h);
    for (auto& x : back) x.bits = static_cast<std::uint16_t>(h);
    const f32x16 b = load(back);
    store(back, b);
    if (b[1] == b[1]) wrong += back[9].bits != h;
    else wrong += (back[9].bits & 0x7f80) != 0x7f80 || (back[9].bits & 0x7f) == 0;
  }
  std::uint32_t u = 1;
  for (int i = 0; i < 400000; ++i) {
    u = u * 1664525u + 1013904223u;
    float f;
    const std::uint32_t pattern = i % 2 == 0 ? u : (u & 0x807fffffu) | ((100u + u % 48u) << 23);
    std::memcpy(&f, &pattern, 4);
    f16 out[lanes];
    store(out, f32x16(f));
    if (f != f) continue;
    const _Float16 want = static_cast<_Float16>(f);
    std::uint16_t h;
    std::memcpy(&h, &want, 2);
    wrong += (out[i % 16].bits != h) + (f16_bits(f) != h);
  }
  report(name, "f16 and bf16 conversions", wrong == 0, wrong);

  // Random123's published vectors, as (key, counter, output).
  const std::uint32_t vectors[3][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0xa4093822, 0x299f31d0, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
  bool right = true;
  for (const auto& v : vectors) {
    const Philox philox(v[0], v[1], v[4], v[5]);
    const std::uint64_t block = static_cast<std::uint64_t>(v[3]) << 32 | v[2];
    for (int b = 0; b < 4; ++b)
      for (int w = 0; w < 4; ++w) right = right && philox.words(block - static_cast<std::uint64_t>(b))[4 * b + w] == v[6 + w];
  }
  report(name, "Philox4x32-10", right, 0);
  f32x16 ramp;
  for (int i = 0; i < lanes; ++i) ramp.set(i, static_cast<float>(1 << i));
  report(name, "horizontal", sum(ramp) == 65535.0f && largest(ramp) == 32768.0f && any(ramp > 32767.0f) && !any(ramp > 32768.0f) && to_f32(to_f64(ramp))[15] == 32768.0f, 0);
}

}  // namespace lomo::LOMO_ISA
