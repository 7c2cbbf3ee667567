// Sixteen-lane vectors with one meaning on every instruction set, so that reductions add in the same order everywhere.
// A vector is a few native registers in a struct: gcc spills raw 64-byte vectors to the stack where registers are narrower.
// Everything lives in lomo::LOMO_ISA because one file is compiled once per instruction set. Build with -ffp-contract=off:
// products and sums fuse only where fma() is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // gcc 12 warns about its own undefined operands
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#define LOMO_INLINE inline __attribute__((always_inline))
#define LOMO_ALWAYS __attribute__((always_inline))  // after a lambda's parameters

namespace lomo::LOMO_ISA {

constexpr int lanes = 16;
#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX2__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

template <class E> struct native_of { typedef E type __attribute__((vector_size(register_bytes))); };
template <class E> using native = typename native_of<E>::type;

// Sixteen elements of E. Lane i is element i % per of part i / per.
template <class E>
struct vec {
  static constexpr int parts = lanes * static_cast<int>(sizeof(E)) / register_bytes;
  static constexpr int per = lanes / parts;
  native<E> part[parts];

  vec() = default;
  LOMO_INLINE vec(E x) { for (int i = 0; i < parts; ++i) part[i] = x - native<E>{}; }  // one number in every lane
  LOMO_INLINE E operator[](int i) const { return part[i / per][i % per]; }
  LOMO_INLINE void set(int i, E x) { part[i / per][i % per] = x; }
};

using f32x16 = vec<float>;
using f64x16 = vec<double>;
using i32x16 = vec<std::int32_t>;
using u32x16 = vec<std::uint32_t>;
using u64x16 = vec<std::uint64_t>;
using mask16 = i32x16;  // lanes 0 or -1

// Register by register: F sees native vectors, so gcc's own operators apply.
template <class R, class A, class F> LOMO_INLINE R map(const A& a, F f) {
  R r;
  for (int i = 0; i < A::parts; ++i) r.part[i] = f(a.part[i]);
  return r;
}
template <class R, class A, class B, class F> LOMO_INLINE R map(const A& a, const B& b, F f) {
  R r;
  for (int i = 0; i < A::parts; ++i) r.part[i] = f(a.part[i], b.part[i]);
  return r;
}
template <class V> struct is_vec { static constexpr bool value = false; };
template <class E> struct is_vec<vec<E>> { static constexpr bool value = true; };

#define LOMO_BINARY(op)                                                                                              \
  template <class E> LOMO_INLINE vec<E> operator op(const vec<E>& a, const vec<E>& b) {                              \
    return map<vec<E>>(a, b, [](auto x, auto y) LOMO_ALWAYS { return x op y; });                  \
  }                                                                                                                  \
  template <class E> LOMO_INLINE vec<E> operator op(const vec<E>& a, std::type_identity_t<E> b) { return a op vec<E>(b); } \
  template <class E> LOMO_INLINE vec<E> operator op(std::type_identity_t<E> a, const vec<E>& b) { return vec<E>(a) op b; } \
  template <class E> LOMO_INLINE vec<E>& operator op##=(vec<E>& a, const vec<E>& b) { return a = a op b; }           \
  template <class E> LOMO_INLINE vec<E>& operator op##=(vec<E>& a, std::type_identity_t<E> b) { return a = a op vec<E>(b); }
LOMO_BINARY(+)
LOMO_BINARY(-)
LOMO_BINARY(*)
LOMO_BINARY(/)
LOMO_BINARY(&)
LOMO_BINARY(|)
LOMO_BINARY(^)
#undef LOMO_BINARY

#define LOMO_COMPARE(op)                                                                                             \
  template <class E> LOMO_INLINE mask16 operator op(const vec<E>& a, const vec<E>& b) {                              \
    static_assert(sizeof(E) == 4);                                                                                   \
    return map<mask16>(a, b, [](auto x, auto y) LOMO_ALWAYS { return x op y; });                  \
  }                                                                                                                  \
  template <class E> LOMO_INLINE mask16 operator op(const vec<E>& a, std::type_identity_t<E> b) { return a op vec<E>(b); }
LOMO_COMPARE(<)
LOMO_COMPARE(<=)
LOMO_COMPARE(>)
LOMO_COMPARE(>=)
LOMO_COMPARE(==)
LOMO_COMPARE(!=)
#undef LOMO_COMPARE

template <class E> LOMO_INLINE vec<E> operator-(const vec<E>& a) {
  return map<vec<E>>(a, [](auto x) LOMO_ALWAYS { return -x; });
}
template <class E> LOMO_INLINE vec<E> operator~(const vec<E>& a) {
  return map<vec<E>>(a, [](auto x) LOMO_ALWAYS { return ~x; });
}
template <class E> LOMO_INLINE vec<E> operator<<(const vec<E>& a, int n) {
  return map<vec<E>>(a, [n](auto x) LOMO_ALWAYS { return x << n; });
}
template <class E> LOMO_INLINE vec<E> operator>>(const vec<E>& a, int n) {
  return map<vec<E>>(a, [n](auto x) LOMO_ALWAYS { return x >> n; });
}

// Lanes of a where the mask is set, of b elsewhere.
template <class E> LOMO_INLINE vec<E> select(const mask16& m, const vec<E>& a, const vec<E>& b) {
  vec<E> r;
  for (int i = 0; i < vec<E>::parts; ++i) r.part[i] = m.part[i] ? a.part[i] : b.part[i];
  return r;
}

// The same bits read as another element type of the same size.
template <class To, class E> LOMO_INLINE vec<To> bits(const vec<E>& a) {
  static_assert(sizeof(To) == sizeof(E));
  return map<vec<To>>(a, [](auto x) LOMO_ALWAYS { return (native<To>)x; });
}

// a b + c, rounded once where the instruction set can (avx2, avx512), twice on the portable one.
LOMO_INLINE f32x16 fma(const f32x16& a, const f32x16& b, const f32x16& c) {
  f32x16 r;
  for (int i = 0; i < f32x16::parts; ++i) {
#if defined(__AVX512F__)
    r.part[i] = _mm512_fmadd_ps(a.part[i], b.part[i], c.part[i]);
#elif defined(__FMA__) && defined(__AVX2__)
    r.part[i] = _mm256_fmadd_ps(a.part[i], b.part[i], c.part[i]);
#else
    r.part[i] = a.part[i] * b.part[i] + c.part[i];
#endif
  }
  return r;
}

LOMO_INLINE f32x16 sqrt(const f32x16& a) {
  f32x16 r;
  for (int i = 0; i < f32x16::parts; ++i) {
#if defined(__AVX512F__)
    r.part[i] = _mm512_sqrt_ps(a.part[i]);
#elif defined(__AVX2__)
    r.part[i] = _mm256_sqrt_ps(a.part[i]);
#elif defined(__x86_64__)
    r.part[i] = _mm_sqrt_ps(a.part[i]);
#else
    for (int j = 0; j < f32x16::per; ++j) r.part[i][j] = __builtin_sqrtf(a.part[i][j]);
#endif
  }
  return r;
}

// The larger lane; b where either is NaN (as x86 does it).
LOMO_INLINE f32x16 max(const f32x16& a, const f32x16& b) { return select(a > b, a, b); }
LOMO_INLINE f32x16 min(const f32x16& a, const f32x16& b) { return select(a < b, a, b); }
LOMO_INLINE f32x16 abs(const f32x16& a) { return bits<float>(bits<std::uint32_t>(a) & 0x7fffffffu); }

// Truncated towards zero; lanes outside i32 are unspecified.
LOMO_INLINE i32x16 to_i32(const f32x16& a) {
  return map<i32x16>(a, [](auto x) LOMO_ALWAYS { return __builtin_convertvector(x, native<std::int32_t>); });
}
LOMO_INLINE f32x16 to_f32(const i32x16& a) {
  return map<f32x16>(a, [](auto x) LOMO_ALWAYS { return __builtin_convertvector(x, native<float>); });
}

LOMO_INLINE f64x16 to_f64(const f32x16& a) {
  f64x16 r;
  for (int i = 0; i < f32x16::parts; ++i) {
#if defined(__AVX512F__)
    r.part[2 * i] = _mm512_cvtps_pd(_mm512_castps512_ps256(a.part[i]));
    r.part[2 * i + 1] = _mm512_cvtps_pd(_mm256_castsi256_ps(_mm512_extracti64x4_epi64(_mm512_castps_si512(a.part[i]), 1)));
#elif defined(__AVX2__)
    r.part[2 * i] = _mm256_cvtps_pd(_mm256_castps256_ps128(a.part[i]));
    r.part[2 * i + 1] = _mm256_cvtps_pd(_mm256_extractf128_ps(a.part[i], 1));
#elif defined(__x86_64__)
    r.part[2 * i] = _mm_cvtps_pd(a.part[i]);
    r.part[2 * i + 1] = _mm_cvtps_pd(_mm_movehl_ps(a.part[i], a.part[i]));
#else
    for (int j = 0; j < f32x16::per; ++j) r.part[2 * i + j / f64x16::per][j % f64x16::per] = a.part[i][j];
#endif
  }
  return r;
}
LOMO_INLINE f32x16 to_f32(const f64x16& a) {
  f32x16 r;
  for (int i = 0; i < f32x16::parts; ++i) {
#if defined(__AVX512F__)
    const __m512d low = _mm512_castps_pd(_mm512_castps256_ps512(_mm512_cvtpd_ps(a.part[2 * i])));
    r.part[i] = _mm512_castpd_ps(_mm512_insertf64x4(low, _mm256_castps_pd(_mm512_cvtpd_ps(a.part[2 * i + 1])), 1));
#elif defined(__AVX2__)
    r.part[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(a.part[2 * i])), _mm256_cvtpd_ps(a.part[2 * i + 1]), 1);
#elif defined(__x86_64__)
    r.part[i] = _mm_movelh_ps(_mm_cvtpd_ps(a.part[2 * i]), _mm_cvtpd_ps(a.part[2 * i + 1]));
#else
    for (int j = 0; j < f32x16::per; ++j) r.part[i][j] = static_cast<float>(a.part[2 * i + j / f64x16::per][j % f64x16::per]);
#endif
  }
  return r;
}

// 0, 1, ... 15.
LOMO_INLINE i32x16 lane_index() {
  alignas(64) static constexpr std::int32_t n[lanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  i32x16 r;
  std::memcpy(&r, n, sizeof n);
  return r;
}

// Sums in one fixed tree whatever the instruction set: lane i with i + 8, + 4, + 2, + 1.
template <class E> LOMO_INLINE E sum(const vec<E>& a) {
  E x[lanes];
  std::memcpy(x, &a, sizeof x);
  for (int i = 0; i < 8; ++i) x[i] += x[i + 8];
  for (int i = 0; i < 4; ++i) x[i] += x[i + 4];
  return (x[0] + x[2]) + (x[1] + x[3]);
}
LOMO_INLINE float largest(const f32x16& a) {
  float x[lanes];
  std::memcpy(x, &a, sizeof x);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) x[i] = x[i] > x[i + width] ? x[i] : x[i + width];
  return x[0];
}
// Whether any lane of the mask is set.
LOMO_INLINE bool any(const mask16& m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m.part[0], (__m512i)m.part[0]) != 0;
#else
  native<std::int32_t> x = m.part[0];
  for (int i = 1; i < mask16::parts; ++i) x |= m.part[i];
  std::int32_t t = 0;
  for (int j = 0; j < mask16::per; ++j) t |= x[j];
  return t != 0;
#endif
}
// Lanes that hold infinity or NaN.
LOMO_INLINE mask16 not_finite(const f32x16& a) { return (bits<std::int32_t>(a) & 0x7f800000) == 0x7f800000; }

}  // namespace lomo::LOMO_ISA
