// What attention's products multiply: f32 numbers, or where the processor has such products, pairs of bf16 as they lie in memory.
// A pair's two products join an f32 sum, so queries, keys, values and gradients enter exactly; weights and gradients of scores, which are
// f32, are rounded to bf16 before they are multiplied, as every flash attention with 16-bit products does.
#pragma once

#include "../simd/storage.h"

namespace lomo::LOMO_ISA {

using pair = std::uint32_t;  // two bf16, the earlier one in the low half

template <class T> struct unit_of { using type = float; };
#if defined(__AVX512BF16__)
template <> struct unit_of<bf16> { using type = pair; };
#endif
// The unit of operands stored as T, and how many of their elements it holds.
template <class T> using unit = typename unit_of<T>::type;
template <class U> constexpr std::int64_t per = std::is_same_v<U, pair> ? 2 : 1;

// `count` elements in units, the last one filled up.
template <class U> constexpr std::int64_t units(std::int64_t count) { return (count + per<U> - 1) / per<U>; }

#if defined(__AVX512BF16__)
LOMO_INLINE void store_half(pair* p, const f32x16& a) { store(reinterpret_cast<bf16*>(p), a); }
// Lane l becomes the pair (first[l], second[l]).
LOMO_INLINE void store_pairs(pair* p, const f32x16& first, const f32x16& second) {
  alignas(64) static constexpr std::uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512bh both = _mm512_cvtne2ps_pbh(second.part[0], first.part[0]);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(_mm512_load_si512(order), (__m512i)both));
}
#endif

// One element row of `from`, times `factor` (1, -1 or 0), as units [padded / per]; 0 beyond `dim`.
template <class U, class T> LOMO_INLINE void copy_row(const T* from, std::int64_t dim, std::int64_t padded, float factor, U* to) {
  for (std::int64_t j = 0; j < padded; j += lanes) {
    const std::int64_t n = dim - j < lanes ? (dim - j > 0 ? dim - j : 0) : lanes;
    const f32x16 x = (n > 0 ? load(from + j, n) : f32x16(0.0f)) * factor;
    if constexpr (per<U> == 1) store(to + j, x);
    else store(reinterpret_cast<bf16*>(to) + j, x);
  }
}
template <class U> LOMO_INLINE void clear_row(std::int64_t padded, U* to) { std::memset(to, 0, static_cast<std::size_t>(padded / per<U>) * sizeof(U)); }

// Rows of units along columns, [rows, padded / 2], become units along rows, [rows / 2 rounded up, padded]; a missing last row is 0.
inline void pair_rows(std::int64_t rows, std::int64_t padded, const pair* from, pair* to) {
  for (std::int64_t i = 0; i < rows; i += 2, to += padded) {
    const auto* first = reinterpret_cast<const std::uint16_t*>(from + i * (padded / 2));
    const auto* second = first + padded;
    for (std::int64_t j = 0; j < padded; j += lanes) {
      const u32x16 low = widen(first + j);
      store(to + j, i + 1 < rows ? low | widen(second + j) << 16 : low);
    }
  }
}

}  // namespace lomo::LOMO_ISA
