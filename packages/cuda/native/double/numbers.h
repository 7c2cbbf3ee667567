// Test only: f32, bf16 and f16 in memory as the doubles of cuBLASLt and NCCL read and write them. To nearest even.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace lomo::twin {

enum class Format { f32, bf16, f16 };

inline float float_of(std::uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

inline float half(std::uint16_t h) {
  const std::uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
  const float size = exponent == 0 ? static_cast<float>(fraction) * 0x1p-24f : float_of(exponent == 31 ? 0x7f800000u | fraction << 13 : (exponent + 112) << 23 | fraction << 13);
  return (h & 0x8000u) != 0 ? -size : size;
}

inline float get(Format f, const void* p, std::uint64_t i) {
  if (f == Format::f32) return static_cast<const float*>(p)[i];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(p)[i];
  return f == Format::f16 ? half(bits) : float_of(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t bf16_bits(float x) {
  std::uint32_t u;
  std::memcpy(&u, &x, 4);
  return static_cast<std::uint16_t>(x != x ? 0x7fc0u : (u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
inline std::uint16_t f16_bits(float x) {
  std::uint32_t u;
  std::memcpy(&u, &x, 4);
  const std::uint32_t sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
  if (size > 0x7f800000u) return 0x7e00;
  if (size >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (size < 0x38800000u) return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::nearbyint(std::ldexp(static_cast<double>(float_of(size)), 24))));
  return static_cast<std::uint16_t>(sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13);
}

inline void put(Format f, void* p, std::uint64_t i, float x) {
  if (f == Format::f32) static_cast<float*>(p)[i] = x;
  else static_cast<std::uint16_t*>(p)[i] = f == Format::f16 ? f16_bits(x) : bf16_bits(x);
}

}  // namespace lomo::twin
