// Loads and stores of sixteen elements kept as f32, bf16 or f16. bf16 and f16 round to nearest even; NaN stays NaN.
// The forms with a count touch only the first n elements: lanes beyond are 0 on load and dropped on store.
#pragma once

#include "vec.h"

namespace lomo::LOMO_ISA {

struct bf16 { std::uint16_t bits; };
struct f16 { std::uint16_t bits; };

// Sixteen 16-bit words, zero-extended; and back, the low halves.
LOMO_INLINE u32x16 widen(const std::uint16_t* p) {
  u32x16 r;
#if defined(__AVX512F__)
  r.part[0] = (native<std::uint32_t>)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  for (int i = 0; i < 2; ++i)
    r.part[i] = (native<std::uint32_t>)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * i)));
#elif defined(__x86_64__)
  for (int i = 0; i < 2; ++i) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * i));
    r.part[2 * i] = (native<std::uint32_t>)_mm_unpacklo_epi16(x, _mm_setzero_si128());
    r.part[2 * i + 1] = (native<std::uint32_t>)_mm_unpackhi_epi16(x, _mm_setzero_si128());
  }
#else
  for (int i = 0; i < lanes; ++i) r.set(i, p[i]);
#endif
  return r;
}
LOMO_INLINE void narrow(std::uint16_t* p, const u32x16& a) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16((__m512i)a.part[0]));
#elif defined(__AVX2__)
  const __m256i low = _mm256_set1_epi32(0xffff);
  const __m256i x = _mm256_packus_epi32(_mm256_and_si256((__m256i)a.part[0], low), _mm256_and_si256((__m256i)a.part[1], low));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(x, 0xd8));
#elif defined(__x86_64__)
  for (int i = 0; i < 2; ++i) {  // SSE2 packs signed only: sign-extend the low halves first
    const __m128i x = _mm_srai_epi32(_mm_slli_epi32((__m128i)a.part[2 * i], 16), 16);
    const __m128i y = _mm_srai_epi32(_mm_slli_epi32((__m128i)a.part[2 * i + 1], 16), 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8 * i), _mm_packs_epi32(x, y));
  }
#else
  for (int i = 0; i < lanes; ++i) p[i] = static_cast<std::uint16_t>(a[i]);
#endif
}

// One f16 as an f32, exactly, and the bits of the nearest f16: for instruction sets without the conversion.
LOMO_INLINE float f16_value(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000) << 16, rest = h & 0x7fff;
  std::uint32_t u;
  if (rest >= 0x7c00) u = sign | 0x7f800000u | (rest & 0x3ff) << 13;
  else if (rest >= 0x400) u = sign | ((rest << 13) + (112u << 23));
  else {
    const float f = static_cast<float>(rest) * 0x1p-24f;  // subnormal: a multiple of 2^-24
    std::memcpy(&u, &f, 4);
    u |= sign;
  }
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
LOMO_INLINE std::uint16_t f16_bits(float f) {
  std::uint32_t u;
  std::memcpy(&u, &f, 4);
  const std::uint16_t sign = static_cast<std::uint16_t>(u >> 16 & 0x8000);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00 | (u >> 13 & 0x3ff));
  if (u >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00);  // from 65520 on
  if (u >= 0x38800000u) return static_cast<std::uint16_t>(sign | (u + 0xfffu + (u >> 13 & 1) - (112u << 23)) >> 13);
  float a;
  std::memcpy(&a, &u, 4);
  a += 0.5f;  // the addition rounds to a multiple of 2^-24, to even
  std::memcpy(&u, &a, 4);
  return static_cast<std::uint16_t>(sign | (u - 0x3f000000u));
}

// Register by register: a copy of the whole struct would go through the stack.
template <class E> LOMO_INLINE vec<E> load_parts(const E* p) {
  vec<E> r;
  for (int i = 0; i < vec<E>::parts; ++i) __builtin_memcpy(&r.part[i], p + i * vec<E>::per, register_bytes);
  return r;
}
template <class E> LOMO_INLINE void store_parts(E* p, const vec<E>& a) {
  for (int i = 0; i < vec<E>::parts; ++i) __builtin_memcpy(p + i * vec<E>::per, &a.part[i], register_bytes);
}

LOMO_INLINE f32x16 load(const float* p) { return load_parts(p); }
LOMO_INLINE f32x16 load(const bf16* p) { return bits<float>(widen(reinterpret_cast<const std::uint16_t*>(p)) << 16); }
LOMO_INLINE f32x16 load(const f16* p) {
  f32x16 r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__) && defined(__AVX2__)
  for (int i = 0; i < 2; ++i) r.part[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * i)));
#else
  for (int i = 0; i < lanes; ++i) r.set(i, f16_value(p[i].bits));
#endif
  return r;
}
LOMO_INLINE i32x16 load(const std::int32_t* p) { return load_parts(p); }
LOMO_INLINE u32x16 load(const std::uint32_t* p) { return load_parts(p); }

LOMO_INLINE void store(float* p, const f32x16& a) { store_parts(p, a); }
LOMO_INLINE void store(std::int32_t* p, const i32x16& a) { store_parts(p, a); }
LOMO_INLINE void store(std::uint32_t* p, const u32x16& a) { store_parts(p, a); }
// The 16 bits of a bf16 in the low half of each lane, rounded to nearest even.
LOMO_INLINE u32x16 bf16_nearest(const f32x16& a) {
  const u32x16 u = bits<std::uint32_t>(a);
  const u32x16 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return select(a != a, (u >> 16) | 0x40u, rounded);
}
#if defined(__AVX512BF16__)
// One instruction, which takes subnormal numbers for 0: kernels that write weights are not compiled for this set.
LOMO_INLINE void store(bf16* p, const f32x16& a) {
  const __m256bh x = _mm512_cvtneps_pbh(a.part[0]);
  __builtin_memcpy(p, &x, sizeof x);
}
#else
LOMO_INLINE void store(bf16* p, const f32x16& a) { narrow(reinterpret_cast<std::uint16_t*>(p), bf16_nearest(a)); }
#endif
LOMO_INLINE void store(f16* p, const f32x16& a) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.part[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__) && defined(__AVX2__)
  for (int i = 0; i < 2; ++i)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8 * i), _mm256_cvtps_ph(a.part[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int i = 0; i < lanes; ++i) p[i].bits = f16_bits(a[i]);
#endif
}

#if defined(__AVX512BW__) && defined(__AVX512VL__)
LOMO_INLINE f32x16 load(const float* p, std::int64_t n) {
  f32x16 r;
  r.part[0] = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
  return r;
}
LOMO_INLINE void store(float* p, const f32x16& a, std::int64_t n) { _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), a.part[0]); }
LOMO_INLINE f32x16 load(const bf16* p, std::int64_t n) {
  if (n >= lanes) return load(p);
  f32x16 r;
  r.part[0] = (native<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), p)), 16);
  return r;
}
LOMO_INLINE void store(bf16* p, const f32x16& a, std::int64_t n) {
  if (n >= lanes) return store(p, a);
  alignas(32) bf16 whole[lanes];
  store(whole, a);
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1), _mm256_load_si256(reinterpret_cast<const __m256i*>(whole)));
}
#endif

// The first n (0 to 16) elements only: short ends go through a copy on the stack.
template <class T> LOMO_INLINE auto load(const T* p, std::int64_t n) {
  if (n >= lanes) return load(p);
  alignas(64) T copy[lanes] = {};
  std::memcpy(copy, p, static_cast<std::size_t>(n) * sizeof(T));
  return load(copy);
}
template <class T, class V> LOMO_INLINE void store(T* p, const V& a, std::int64_t n) {
  if (n >= lanes) return store(p, a);
  alignas(64) T copy[lanes];
  store(copy, a);
  std::memcpy(p, copy, static_cast<std::size_t>(n) * sizeof(T));
}

// One element as an f32, and one f32 rounded into storage, by the same conversions.
template <class T> LOMO_INLINE float value(const T* p) { return load(p, 1)[0]; }
template <class T> LOMO_INLINE void put(T* p, float x) { store(p, f32x16(x), 1); }

// body(i, n) for every vector of [begin, end): n is 16 but for the last one. The full ones see a constant, so their tail code vanishes.
template <class F> LOMO_INLINE void sweep(std::int64_t begin, std::int64_t end, F body) {
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(i, static_cast<std::int64_t>(lanes));
  if (i < end) body(i, end - i);
}

}  // namespace lomo::LOMO_ISA
