// What an update did to one row of a parameter: eight sums, each in one order whatever the tiles and threads (@lomo/optim, row_sums.ts).
#pragma once

#include "row_sum.h"

namespace lomo::LOMO_ISA {

constexpr int row_width = 8;

// Of every element: p before, p' as the rule computed it, q what was stored. d = p' - p was intended, a = q - p applied.
struct RowSums {
  f32x16 changed{0.0f}, intended{0.0f}, applied{0.0f}, error2{0.0f}, intended2{0.0f}, applied2{0.0f}, weight2{0.0f}, gradient2{0.0f};

  // Of f32 weights p' is what was stored; nothing is known of what was intended where `known` is false.
  template <bool known> LOMO_INLINE void add(const f32x16& before, const f32x16& next, const f32x16& stored, const f32x16& g) {
    const f32x16 a = stored - before;
    changed += select(bits<std::int32_t>(stored) == bits<std::int32_t>(before), f32x16(0.0f), f32x16(1.0f));
    if constexpr (known) {
      const f32x16 d = next - before, error = stored - next;
      const u32x16 sign = bits<std::uint32_t>(d) & 0x80000000u;
      intended += abs(d);
      applied += select(d == f32x16(0.0f), f32x16(0.0f), bits<float>(bits<std::uint32_t>(a) ^ sign));
      error2 += error * error;
      intended2 += d * d;
    }
    applied2 += a * a;
    weight2 += before * before;
    gradient2 += g * g;
  }

  // g was added as it came, scaled: a division a vector costs more than all the rest.
  LOMO_INLINE void put(float* row, float loss_scale) const {
    const f32x16* all[row_width] = {&changed, &intended, &applied, &error2, &intended2, &applied2, &weight2, &gradient2};
    for (int c = 0; c < row_width; ++c) row[c] = sum(*all[c]);
    row[row_width - 1] = row[row_width - 1] / loss_scale / loss_scale;
  }
};

}  // namespace lomo::LOMO_ISA
