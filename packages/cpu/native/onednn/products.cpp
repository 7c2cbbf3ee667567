// Keeps primitives by shape and fills the gaps of oneDNN's dtype combinations.
#include "onednn/products.h"

#include <omp.h>

#include <bit>
#include <cstring>

#include "lomo/error.h"

namespace lomo::onednn {
namespace {

// The calling thread's OpenMP thread count for the length of a scope.
class Threads {
 public:
  explicit Threads(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

void widen(const void* from, float* to, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  const auto* bits = static_cast<const std::uint16_t*>(from);
#pragma omp parallel for schedule(static)
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) to[r * columns + c] = std::bit_cast<float>(static_cast<std::uint32_t>(bits[r * stride + c]) << 16);
}

std::uint16_t nearest(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>((bits >> 16) | 0x40);  // keep a NaN a NaN
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

void narrow(const float* from, void* to, std::int64_t count) {
  auto* bits = static_cast<std::uint16_t*>(to);
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < count; ++i) bits[i] = nearest(from[i]);
}

}  // namespace

std::size_t Product::place(std::size_t bytes) {
  const std::size_t at = total_;
  total_ += (bytes + 63) / 64 * 64;
  return at;
}

Product::Product(const Library& library, const Shape& shape) : shape_(shape) {
  primitive_ = std::make_unique<Primitive>(library, shape);
  if (!primitive_->exists()) {
    Shape wide = shape;
    widen_in_ = shape.in != DType::f32;
    narrow_out_ = shape.out != DType::f32;
    wide.in = wide.out = DType::f32;
    if (widen_in_) {
      wide.lda = shape.ta ? shape.m : shape.k;
      wide.ldb = shape.tb ? shape.k : shape.n;
      a_ = place(static_cast<std::size_t>(shape.m * shape.k) * 4);
      b_ = place(static_cast<std::size_t>(shape.k * shape.n) * 4);
      if (shape.bias) bias_ = place(static_cast<std::size_t>(shape.n) * 4);
    }
    if (narrow_out_) c_ = place(static_cast<std::size_t>(shape.m * shape.n) * 4);
    primitive_ = std::make_unique<Primitive>(library, wide);
    if (!primitive_->exists()) throw Error("LibraryError", "oneDNN " + library.version() + " has no f32 product of [" + std::to_string(shape.m) + ", " + std::to_string(shape.k) + "] and [" + std::to_string(shape.k) + ", " + std::to_string(shape.n) + "]");
  }
  scratchpad_ = place(primitive_->scratchpad());
}

void Product::run(const void* a, const void* b, const void* bias, void* c, void* workspace) const {
  auto* base = static_cast<char*>(workspace);
  const auto at = [&](std::size_t offset) { return reinterpret_cast<float*>(base + offset); };
  const Shape& s = shape_;
  void* result = c;
  if (widen_in_) {
    if (s.ta) widen(a, at(a_), s.k, s.m, s.lda); else widen(a, at(a_), s.m, s.k, s.lda);
    if (s.tb) widen(b, at(b_), s.n, s.k, s.ldb); else widen(b, at(b_), s.k, s.n, s.ldb);
    a = at(a_);
    b = at(b_);
    if (s.bias) {
      widen(bias, at(bias_), 1, s.n, s.n);
      bias = at(bias_);
    }
  }
  if (narrow_out_) {
    if (s.add) widen(c, at(c_), s.m, s.n, s.n);
    result = at(c_);
  }
  primitive_->run(a, b, bias, result, base + scratchpad_);
  if (narrow_out_) narrow(at(c_), c, s.m * s.n);
}

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
    const Threads threads(threads_);
    slot = std::make_unique<Product>(library_, shape);
    made_.fetch_add(1);
  }
  return *slot;
}

}  // namespace lomo::onednn
