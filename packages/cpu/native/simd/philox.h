// Philox4x32-10 (Salmon et al., 2011) on four blocks at a time, words in element order: lane 4 b + w is word w of block b.
// One widening multiply per round serves both products of two blocks, because they sit in the even lanes.
#pragma once

#include "vec.h"

namespace lomo::LOMO_ISA {

// Low halves of 64-bit lanes multiplied to 64 bits.
LOMO_INLINE native<std::uint64_t> multiply_even(native<std::uint64_t> a, native<std::uint64_t> b) {
#if defined(__AVX512F__)
  return (native<std::uint64_t>)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (native<std::uint64_t>)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (native<std::uint64_t>)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}
// 32-bit lanes 3, 2, 1, 0 of each 128 bits.
LOMO_INLINE native<std::uint64_t> reverse_words(native<std::uint64_t> a) {
#if defined(__AVX512F__)
  return (native<std::uint64_t>)_mm512_shuffle_epi32((__m512i)a, static_cast<_MM_PERM_ENUM>(0x1b));
#elif defined(__AVX2__)
  return (native<std::uint64_t>)_mm256_shuffle_epi32((__m256i)a, 0x1b);
#elif defined(__x86_64__)
  return (native<std::uint64_t>)_mm_shuffle_epi32((__m128i)a, 0x1b);
#else
  return (native<std::uint64_t>)__builtin_shufflevector((native<std::uint32_t>)a, (native<std::uint32_t>)a, 3, 2, 1, 0);
#endif
}

// The generator of one (key, counter words 2 and 3): words are a pure function of the block number, counter words 0 and 1.
class Philox {
 public:
  Philox(std::uint32_t key0, std::uint32_t key1, std::uint32_t counter2, std::uint32_t counter3) {
    for (int round = 0; round < 10; ++round) {
      const std::uint32_t a = key0 + static_cast<std::uint32_t>(round) * 0x9e3779b9u;
      const std::uint32_t b = key1 + static_cast<std::uint32_t>(round) * 0xbb67ae85u;
      key_[round] = pairs(a, b);
    }
    const std::uint64_t fixed = static_cast<std::uint64_t>(counter3) << 32 | counter2;
    for (int i = 0; i < words64; ++i) {
      base_[i / per64][i % per64] = i % 2 == 0 ? static_cast<std::uint64_t>(i / 2) : fixed;
      step_[i / per64][i % per64] = i % 2 == 0 ? ~std::uint64_t{0} : 0;
    }
  }

  // Words 0 to 3 of blocks block, block + 1, block + 2, block + 3.
  LOMO_INLINE u32x16 words(std::uint64_t block) const {
    const native<std::uint64_t> multiplier = pairs(0xd2511f53u, 0xcd9e8d57u);
    native<std::uint64_t> x[parts];
    for (int i = 0; i < parts; ++i) x[i] = base_[i] + (step_[i] & (block - native<std::uint64_t>{}));
    for (int round = 0; round < 10; ++round) {
      const native<std::uint64_t> key = key_[round];
      for (int i = 0; i < parts; ++i) x[i] = reverse_words(multiply_even(x[i], multiplier)) ^ (x[i] >> 32) ^ key;
    }
    u32x16 r;
    for (int i = 0; i < parts; ++i) r.part[i] = (native<std::uint32_t>)x[i];
    return r;
  }

 private:
  static constexpr int parts = u32x16::parts, per64 = register_bytes / 8, words64 = 8;
  static LOMO_INLINE native<std::uint64_t> pairs(std::uint32_t a, std::uint32_t b) {
    native<std::uint64_t> r;
    for (int i = 0; i < per64; ++i) r[i] = i % 2 == 0 ? a : b;
    return r;
  }
  native<std::uint64_t> key_[10], base_[parts], step_[parts];
};

}  // namespace lomo::LOMO_ISA
