// Element by element: these are small matrices, or machines without bf16 products.
#include "onednn/repack.h"

#include <algorithm>
#include <bit>

namespace lomo::onednn {
namespace {

float value(const void* from, DType t, std::int64_t i) {
  if (t == DType::f32) return static_cast<const float*>(from)[i];
  return std::bit_cast<float>(static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(from)[i]) << 16);
}

void store(void* to, DType t, std::int64_t i, float x) {
  if (t == DType::f32) {
    static_cast<float*>(to)[i] = x;
    return;
  }
  const auto bits = std::bit_cast<std::uint32_t>(x);
  // To nearest, ties to even; a NaN stays one.
  const std::uint32_t high = (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  static_cast<std::uint16_t*>(to)[i] = static_cast<std::uint16_t>(high);
}

}  // namespace

void repack(const void* from, DType from_type, const Matrix& in, void* to, DType to_type, const Matrix& out) {
#pragma omp parallel for schedule(static) if (out.rows * out.columns > 65536)
  for (std::int64_t r = 0; r < out.rows; ++r) {
    const std::int64_t source = std::min(r, in.rows - 1) * in.stride;
    for (std::int64_t c = 0; c < out.columns; ++c) store(to, to_type, r * out.stride + c, value(from, from_type, source + std::min(c, in.columns - 1)));
  }
}

}  // namespace lomo::onednn
