// normal_fill: normal numbers by Box-Muller from counter-based random words; element i depends on (seed, key, i) alone.
#include "dispatch.h"
#include "../simd/math.h"
#include "../simd/parallel.h"
#include "../simd/philox.h"

namespace lomo::LOMO_ISA {
namespace {

// ln((word + 0.5) / 2^32). Near 1 the distance to 1 is taken from the integer, where an f32 of the quotient would have lost it.
LOMO_INLINE f32x16 log_uniform(const u32x16& word) {
  const mask16 upper = bits<std::int32_t>(word) < 0;
  const i32x16 high = bits<std::int32_t>(word >> 8), low = bits<std::int32_t>(word & 0xffu);
  const f32x16 u = to_f32(high) * 0x1p-24f + (to_f32(low) + 0.5f) * 0x1p-32f;
  const i32x16 rest_high = bits<std::int32_t>(~word >> 8), rest_low = bits<std::int32_t>(~word & 0xffu);
  const f32x16 missing = to_f32(rest_high) * 0x1p-24f + (to_f32(rest_low) + 0.5f) * 0x1p-32f;
  return select(upper & (missing < 0.29f), log1p_near(-missing), log(u));
}

// cos(2 pi (word + 0.5) / 2^32): the quarter turn is the word's two high bits, rounded.
LOMO_INLINE f32x16 cos_uniform(const u32x16& word) {
  const u32x16 quarter = (word + (1u << 29)) >> 30;
  const i32x16 rest = bits<std::int32_t>(word - (quarter << 30));
  const f32x16 r = (to_f32(rest) + 0.5f) * static_cast<float>(6.28318530717958647692 * 0x1p-32);
  return sincos(r, bits<std::int32_t>(quarter)).cos;
}

void normal_fill(const Call& call) {
  const Operand& x = call.inout(0);
  const std::uint64_t seed = static_cast<std::uint64_t>(call.attr(1));
  const float mean = static_cast<float>(call.attr(2)), deviation = static_cast<float>(call.attr(3));
  const Philox philox(static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>(call.integer(0)), 0, 1);
  with_storage(x.dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    T* p = x.as<T>();
    split(call, x.count(), 64, 64, [=](std::int64_t begin, std::int64_t end) {
      sweep(begin, end, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
        u32x16 word0, word1;
        std::uint32_t block[lanes], first[lanes], second[lanes];
        for (int b = 0; b < 4; ++b) {
          const u32x16 words = philox.words(static_cast<std::uint64_t>(i) + 4 * static_cast<std::uint64_t>(b));
          std::memcpy(block, &words, sizeof block);
          for (int k = 0; k < 4; ++k) {
            first[4 * b + k] = block[4 * k];
            second[4 * b + k] = block[4 * k + 1];
          }
        }
        std::memcpy(&word0, first, sizeof first);
        std::memcpy(&word1, second, sizeof second);
        const f32x16 normal = sqrt(log_uniform(word0) * -2.0f) * cos_uniform(word1);
        store(p + i, normal * deviation + mean, n);
      });
    });
  });
}

}  // namespace

extern const Kernel kernels_normal_fill[];
const Kernel kernels_normal_fill[] = {
    {"normal_fill", "key seed mean std", accepts<"|s|">, normal_fill, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
