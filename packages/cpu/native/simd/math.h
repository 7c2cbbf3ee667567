// exp, log, sigmoid and sincos on sixteen f32 lanes, to one or two units in the last place. Series short enough to be exact in f32
// after argument reduction; no tables, no fast-math.
#pragma once

#include "vec.h"

namespace lomo::LOMO_ISA {

// e^x. Overflows to infinity, underflows through the subnormals to 0, keeps NaN.
LOMO_INLINE f32x16 exp(const f32x16& a) {
  f32x16 x = select(a > 89.0f, f32x16(89.0f), a);
  x = select(x < -104.0f, f32x16(-104.0f), x);
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits
  const f32x16 shifted = fma(x, f32x16(1.44269504f), f32x16(magic));
  const f32x16 n = shifted - magic;
  f32x16 r = fma(n, f32x16(-0.693145752f), x);  // ln 2 in two pieces; the first has 9 zero bits at its end
  r = fma(n, f32x16(-1.42860677e-6f), r);
  f32x16 p = f32x16(1.0f / 5040);
  p = fma(p, r, f32x16(1.0f / 720));
  p = fma(p, r, f32x16(1.0f / 120));
  p = fma(p, r, f32x16(1.0f / 24));
  p = fma(p, r, f32x16(1.0f / 6));
  p = fma(p, r, f32x16(0.5f));
  p = fma(p * r, r, r) + 1.0f;
#if defined(__AVX512F__)
  p.part[0] = _mm512_scalef_ps(p.part[0], n.part[0]);
  return p;
#else
  const i32x16 k = bits<std::int32_t>(shifted) - bits<std::int32_t>(f32x16(magic));
  const i32x16 half = k >> 1;  // two factors, because 2^k alone leaves the normal range at both ends
  return p * bits<float>((half + 127) << 23) * bits<float>((k - half + 127) << 23);
#endif
}

// 1 / (1 + e^-x).
LOMO_INLINE f32x16 sigmoid(const f32x16& x) { return 1.0f / (exp(-x) + 1.0f); }

// log(1 + f) for f in [sqrt(1/2) - 1, sqrt(2) - 1], by the series of atanh; relative to f, so exact near 0.
LOMO_INLINE f32x16 log1p_near(const f32x16& f) {
  const f32x16 s = f / (f + 2.0f);
  const f32x16 z = s * s;
  f32x16 p = f32x16(2.0f / 11);
  p = fma(p, z, f32x16(2.0f / 9));
  p = fma(p, z, f32x16(2.0f / 7));
  p = fma(p, z, f32x16(2.0f / 5));
  p = fma(p, z, f32x16(2.0f / 3));
  return f - s * (f - z * p);
}

// log x for normal positive x.
LOMO_INLINE f32x16 log(const f32x16& x) {
  const i32x16 u = bits<std::int32_t>(x);
  const i32x16 k = (u - 0x3f3504f3) >> 23;  // so that the mantissa lies in [sqrt(1/2), sqrt(2))
  const f32x16 f = bits<float>(u - (k << 23)) - 1.0f;
  const f32x16 e = to_f32(k);
  return fma(e, f32x16(0.693145752f), log1p_near(f) + e * 1.42860677e-6f);
}

struct sincos16 { f32x16 sin, cos; };

// sin and cos of quarter * pi/2 + r, r in [-pi/4, pi/4].
LOMO_INLINE sincos16 sincos(const f32x16& r, const i32x16& quarter) {
  const f32x16 z = r * r;
  f32x16 s = f32x16(1.0f / 362880);
  s = fma(s, z, f32x16(-1.0f / 5040));
  s = fma(s, z, f32x16(1.0f / 120));
  s = fma(s, z, f32x16(-1.0f / 6));
  s = fma(s * z, r, r);
  f32x16 c = f32x16(-1.0f / 3628800);
  c = fma(c, z, f32x16(1.0f / 40320));
  c = fma(c, z, f32x16(-1.0f / 720));
  c = fma(c, z, f32x16(1.0f / 24));
  c = fma(c * z, z, fma(z, f32x16(-0.5f), f32x16(1.0f)));
  const mask16 odd = (quarter & 1) != 0;
  const i32x16 sin_sign = (quarter & 2) << 30, cos_sign = ((quarter + 1) & 2) << 30;
  return {bits<float>(bits<std::int32_t>(select(odd, c, s)) ^ sin_sign), bits<float>(bits<std::int32_t>(select(odd, s, c)) ^ cos_sign)};
}

// sin and cos of an angle in radians, reduced in double precision; |angle| up to 2^31 keeps f32 accuracy.
LOMO_INLINE sincos16 sincos(const f64x16& angle) {
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  const f64x16 n = (angle * 0.63661977236758134308 + magic) - magic;
  // pi/2 in two pieces, the first of 33 bits.
  const f64x16 r = (angle - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
  const f64x16 turns = ((n * 0.25 + magic) - magic) * 4.0;
  return sincos(to_f32(r), to_i32(to_f32(n - turns)));
}

}  // namespace lomo::LOMO_ISA
