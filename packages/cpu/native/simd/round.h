// Stochastic rounding of f32 to bf16 and f16: up with the probability of the fraction dropped, from one random word an element.
// Exact values stay exact, infinities and NaN stay what they are.
#pragma once

#include "storage.h"

namespace lomo::LOMO_ISA {

LOMO_INLINE void store_stochastic(float* p, const f32x16& a, const u32x16&, std::int64_t n) { store(p, a, n); }

LOMO_INLINE void store_words(std::uint16_t* p, const u32x16& a, std::int64_t n) {
  if (n >= lanes) return narrow(p, a);
  std::uint16_t copy[lanes];
  narrow(copy, a);
  std::memcpy(p, copy, static_cast<std::size_t>(n) * 2);
}

// The low 16 bits of the word are added below the kept bits, then those are cut off.
LOMO_INLINE void store_stochastic(bf16* p, const f32x16& a, const u32x16& word, std::int64_t n) {
  const u32x16 u = bits<std::uint32_t>(a);
  const u32x16 rounded = (u + (word & 0xffffu)) >> 16;
  store_words(reinterpret_cast<std::uint16_t*>(p), select(a != a, (u >> 16) | 0x40u, rounded), n);
}

// Normals: the low 13 bits of the word. Below 2^-14 the spacing is fixed at 2^-24: up when word / 2^32 < the fraction of the value in
// those units; the word is compared in two pieces that an f32 holds.
LOMO_INLINE void store_stochastic(f16* p, const f32x16& a, const u32x16& word, std::int64_t n) {
  const u32x16 u = bits<std::uint32_t>(a) & 0x7fffffffu;
  const f32x16 size = bits<float>(u);
  const u32x16 sign = (bits<std::uint32_t>(a) >> 16) & 0x8000u;
  const u32x16 normal = (u + (word & 0x1fffu) - 0x38000000u) >> 13;
  const f32x16 units = min(size, f32x16(1.0f)) * 0x1p24f;  // below 1024 where it is used
  const i32x16 whole = to_i32(units);
  const f32x16 high = to_f32(bits<std::int32_t>(word >> 8)) * 0x1p-24f, low = to_f32(bits<std::int32_t>(word & 0xffu)) * 0x1p-32f;
  const mask16 up = low < units - to_f32(whole) - high;
  const u32x16 subnormal = bits<std::uint32_t>(whole - up);  // a set lane is -1
  u32x16 r = select(size < 0x1p-14f, subnormal, normal);
  r = select(size >= 65536.0f, u32x16(0x7c00u), r);
  r = select(a != a, u32x16(0x7e00u), r);
  store_words(reinterpret_cast<std::uint16_t*>(p), r | sign, n);
}

}  // namespace lomo::LOMO_ISA
