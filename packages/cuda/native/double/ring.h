// Test only: the sums of the NCCL double, in the order of a ring.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "double/numbers.h"
#include "nccl/api.h"

namespace lomo::twin {

inline std::size_t size_of(nccl::DataType t) { return t == nccl::type_u8 ? 1 : t == nccl::type_f16 || t == nccl::type_bf16 ? 2 : 4; }

// out[i] = a[i] o b[i] in the dtype.
inline void combine(void* out, const void* a, const void* b, std::size_t n, nccl::DataType type, nccl::Operation operation) {
  const bool most = operation == nccl::max;
  for (std::size_t i = 0; i < n; ++i) {
    if (type == nccl::type_i32) {
      const auto *x = static_cast<const std::int32_t*>(a), *y = static_cast<const std::int32_t*>(b);
      static_cast<std::int32_t*>(out)[i] = most ? std::max(x[i], y[i]) : static_cast<std::int32_t>(static_cast<std::uint32_t>(x[i]) + static_cast<std::uint32_t>(y[i]));
    } else if (type == nccl::type_u8) {
      const auto *x = static_cast<const std::uint8_t*>(a), *y = static_cast<const std::uint8_t*>(b);
      static_cast<std::uint8_t*>(out)[i] = most ? std::max(x[i], y[i]) : static_cast<std::uint8_t>(x[i] + y[i]);
    } else {
      const Format f = type == nccl::type_f32 ? Format::f32 : type == nccl::type_f16 ? Format::f16 : Format::bf16;
      const float x = get(f, a, i), y = get(f, b, i);
      put(f, out, i, most ? (x > y || x != x ? x : y) : x + y);
    }
  }
}

// Part c of n elements over P ranks.
inline std::pair<std::size_t, std::size_t> piece(std::size_t n, int ranks, int c) {
  const std::size_t each = (n + static_cast<std::size_t>(ranks) - 1) / static_cast<std::size_t>(ranks), from = std::min(n, each * static_cast<std::size_t>(c));
  return {from, std::min(n, from + each) - from};
}

// What rank c would have of elements [from, from + n) of all ranks' `data` after its way round the ring.
inline void ring(unsigned char* out, const std::vector<const unsigned char*>& data, std::size_t from, std::size_t n, int c, nccl::DataType type, nccl::Operation operation) {
  const auto ranks = static_cast<int>(data.size());
  const std::size_t size = size_of(type), at = from * size;
  std::memcpy(out, data[static_cast<std::size_t>((c + 1) % ranks)] + at, n * size);
  for (int hop = 2; hop <= ranks; ++hop) combine(out, out, data[static_cast<std::size_t>((c + hop) % ranks)] + at, n, type, operation);
}

}  // namespace lomo::twin
