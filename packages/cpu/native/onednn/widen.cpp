// By the processor's own conversion where it has one; every f16 is an f32, so both ways give the same numbers.
#include "onednn/widen.h"

#include <bit>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lomo::onednn {
namespace {

float value(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16, rest = half & 0x7fff;
  if (rest < 0x400) return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(static_cast<float>(rest) * 0x1p-24f));  // subnormal
  if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000u | (rest > 0x7c00 ? 0x400000u : 0u) | (rest & 0x3ff) << 13);  // a NaN becomes a quiet one
  return std::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
}

void plain(const std::uint16_t* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = value(from[i]);
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) void converted(const std::uint16_t* from, float* to, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  plain(from + i, to + i, count - i);
}
#endif

}  // namespace

void widen(const std::uint16_t* from, std::int64_t rows, std::int64_t columns, std::int64_t stride, float* to) {
#if defined(__x86_64__)
  const auto row = __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c") ? converted : plain;
#else
  const auto row = plain;
#endif
#pragma omp parallel for schedule(static) if (rows * columns > 65536)
  for (std::int64_t r = 0; r < rows; ++r) row(from + r * stride, to + r * columns, columns);
}

}  // namespace lomo::onednn
