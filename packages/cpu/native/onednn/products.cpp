// Makes a product on first use and keeps it.
#include "onednn/products.h"

#include <bit>

namespace lomo::onednn {

std::size_t Products::Hash::operator()(const Shape& s) const {
  std::uint64_t h = 0;
  const auto mix = [&](std::uint64_t x) { h = (h ^ x) * 0x9e3779b97f4a7c15u, h ^= h >> 29; };
  for (const std::int64_t x : {s.m, s.n, s.k, s.lda, s.ldb}) mix(static_cast<std::uint64_t>(x));
  mix(static_cast<std::uint64_t>(s.ta | s.tb << 1 | s.add << 2 | s.bias << 3 | static_cast<int>(s.in) << 4 | static_cast<int>(s.out) << 8));
  mix(std::bit_cast<std::uint32_t>(s.alpha));
  return h;
}

const Product& Products::get(const Shape& shape) {
  const std::lock_guard lock(mutex_);
  auto& slot = cache_[shape];
  if (slot == nullptr) {
    slot = std::make_unique<Product>(library_, shape, threads_);
    made_.fetch_add(1);
  }
  return *slot;
}

}  // namespace lomo::onednn
