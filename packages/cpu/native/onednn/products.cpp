// Keeps primitives by shape and fills the gaps of oneDNN's dtype combinations.
#include "onednn/products.h"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>

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

// A matrix in memory: elements from one row to the next may exceed its columns.
struct Matrix {
  std::int64_t rows, columns, stride;
};

// Copies between dtypes. Rows or columns `out` has beyond `in` repeat the last one; those it lacks are left out.
void repack(const void* from, DType from_type, const Matrix& in, void* to, DType to_type, const Matrix& out) {
#pragma omp parallel for schedule(static)
  for (std::int64_t r = 0; r < out.rows; ++r) {
    const std::int64_t source = std::min(r, in.rows - 1) * in.stride;
    for (std::int64_t c = 0; c < out.columns; ++c) store(to, to_type, r * out.stride + c, value(from, from_type, source + std::min(c, in.columns - 1)));
  }
}

}  // namespace

std::size_t Product::place(std::size_t bytes) {
  const std::size_t at = total_;
  total_ += (bytes + 63) / 64 * 64;
  return at;
}

// With a transposed `a`, oneDNN picks one of two implementations by how the rows lie: one adds up the whole inner dimension, the other
// blocks of 384; and where tiles are few it splits the sum over threads (2.6: from some 1,536 on; 3.2: from 256). So the sum runs in
// pieces of 256, on which both agree bit for bit and which divide the chunk of 512 tokens, and each thread gets rows of its own with
// a single-threaded product. A row's bits then depend neither on the tile it is in nor on the threads; the cost is 4 % or less.
constexpr std::int64_t transposed_step = 256;
constexpr std::int64_t panel_unit = 64;  // rows a thread takes at least

std::int64_t panel_rows(const Shape& s, int threads) {
  if (!s.ta) return s.m;
  const std::int64_t units = (s.m + panel_unit - 1) / panel_unit;
  return std::min(s.m, (units + threads - 1) / threads * panel_unit);
}

bool Product::Pieces::exist() const {
  for (const auto* p : {first.get(), later.get(), last.get()})
    if (p != nullptr && !p->exists()) return false;
  return true;
}

std::size_t Product::Pieces::scratchpad() const {
  std::size_t bytes = 0;
  for (const auto* p : {first.get(), later.get(), last.get()})
    if (p != nullptr) bytes = std::max(bytes, p->scratchpad());
  return bytes;
}

Product::Pieces Product::make(const Library& library, std::int64_t rows) const {
  const Threads threads(inner_.ta ? 1 : threads_);
  const auto piece = [&](std::int64_t k, bool add) {
    Shape s = inner_;
    s.m = rows;
    s.k = k;
    s.add = add;
    s.bias = inner_.bias && (!add || inner_.add);
    return std::make_unique<Primitive>(library, s, panels_);
  };
  Pieces p;
  p.first = piece(std::min(step_, inner_.k), inner_.add);
  if (inner_.k >= 2 * step_) p.later = piece(step_, true);
  if (inner_.k > step_ && inner_.k % step_ != 0) p.last = piece(inner_.k % step_, true);
  return p;
}

bool Product::arrange(const Library& library, bool pack) {
  pack_in_ = pack;
  if (pack) {
    inner_.lda = inner_.ta ? inner_.m : inner_.k;
    inner_.ldb = inner_.tb ? inner_.k : inner_.n;
  }
  pack_out_ = inner_.m != shape_.m || inner_.n != shape_.n || inner_.out != shape_.out;
  whole_ = make(library, panel_);
  if (inner_.m % panel_ != 0) rest_ = make(library, inner_.m % panel_);
  return whole_.exist() && rest_.exist();
}

Product::Product(const Library& library, const Shape& shape, int threads)
    : shape_(shape), inner_(shape), threads_(threads), step_(shape.ta ? transposed_step : shape.k) {
  // One row or one column goes through other code, which adds in another order: two of them do not.
  const bool thin = shape.ta && (shape.m == 1 || shape.n == 1);
  if (thin) {
    inner_.m = std::max<std::int64_t>(shape.m, 2);
    inner_.n = std::max<std::int64_t>(shape.n, 2);
  }
  panel_ = panel_rows(inner_, threads);
  // No panel of one row either.
  if (shape.ta && inner_.m % panel_ == 1) panel_ += 1;
  panels_ = static_cast<int>((inner_.m + panel_ - 1) / panel_);
  // Pieces meet in f32, so that a bf16 result is rounded once.
  if (step_ < shape.k) inner_.out = DType::f32;
  if (!arrange(library, thin)) {
    inner_.in = inner_.out = DType::f32;
    if (!arrange(library, thin || shape.in != DType::f32))
      throw Error("LibraryError", "oneDNN " + library.version() + " has no f32 product of [" + std::to_string(shape.m) + ", " + std::to_string(shape.k) + "] and [" +
                                      std::to_string(shape.k) + ", " + std::to_string(shape.n) + "]");
  }
  const auto bytes = [](std::int64_t count, DType t) { return static_cast<std::size_t>(count) * size_of(t); };
  if (pack_in_) {
    a_ = place(bytes(inner_.m * inner_.k, inner_.in));
    b_ = place(bytes(inner_.k * inner_.n, inner_.in));
    if (shape.bias) bias_ = place(bytes(inner_.n, inner_.in));
  }
  if (pack_out_) c_ = place(bytes(inner_.m * inner_.n, inner_.out));
  const std::size_t scratchpad = std::max(whole_.scratchpad(), rest_.scratchpad());
  lane_bytes_ = (scratchpad + 63) / 64 * 64;
  scratchpad_ = place(lane_bytes_ * static_cast<std::size_t>(panels_));
}

void Product::multiply(const Pieces& pieces, int lane, std::int64_t row, Pointers p) const {
  const Shape& s = inner_;
  const auto size = static_cast<std::int64_t>(size_of(s.in));
  const std::int64_t a_step = (s.ta ? s.lda : 1) * size, b_step = (s.tb ? 1 : s.ldb) * size;
  p.a = static_cast<const char*>(p.a) + row * (s.ta ? 1 : s.lda) * size;
  p.c = static_cast<char*>(p.c) + row * s.n * static_cast<std::int64_t>(size_of(s.out));
  p.scratchpad = static_cast<char*>(p.scratchpad) + lane_bytes_ * static_cast<std::size_t>(lane);
  for (std::int64_t k = 0; k < s.k; k += step_) {
    (k == 0 ? pieces.first : s.k - k >= step_ ? pieces.later : pieces.last)->run(lane, p);
    p.a = static_cast<const char*>(p.a) + step_ * a_step;
    p.b = static_cast<const char*>(p.b) + step_ * b_step;
  }
}

void Product::run(const void* a, const void* b, const void* bias, void* c, void* workspace) const {
  auto* base = static_cast<char*>(workspace);
  const Shape &s = shape_, &i = inner_;
  if (pack_in_) {
    const auto pack = [&](const void*& operand, std::size_t place, const Matrix& in, const Matrix& out) {
      repack(operand, s.in, in, base + place, i.in, out);
      operand = base + place;
    };
    pack(a, a_, {s.ta ? s.k : s.m, s.ta ? s.m : s.k, s.lda}, {i.ta ? i.k : i.m, i.ta ? i.m : i.k, i.lda});
    pack(b, b_, {s.tb ? s.n : s.k, s.tb ? s.k : s.n, s.ldb}, {i.tb ? i.n : i.k, i.tb ? i.k : i.n, i.ldb});
    if (s.bias) pack(bias, bias_, {1, s.n, s.n}, {1, i.n, i.n});
  }
  void* result = pack_out_ ? base + c_ : c;
  const Matrix outside{s.m, s.n, s.n}, inside{i.m, i.n, i.n};
  if (pack_out_ && s.add) repack(c, s.out, outside, result, i.out, inside);
  const Pointers pointers{a, b, bias, result, base + scratchpad_};
  const auto panel = [&](int lane) {
    const std::int64_t row = lane * panel_;
    multiply(i.m - row >= panel_ ? whole_ : rest_, lane, row, pointers);
  };
  if (panels_ == 1) {
    const Threads threads(i.ta ? 1 : threads_);
    panel(0);
  } else {
    std::exception_ptr failure;  // an exception may not leave a parallel region
#pragma omp parallel for schedule(static) num_threads(panels_)
    for (int lane = 0; lane < panels_; ++lane) {
      try {
        panel(lane);
      } catch (...) {
#pragma omp critical(lomo_product)
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
  }
  if (pack_out_) repack(result, i.out, inside, c, s.out, outside);
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
    slot = std::make_unique<Product>(library_, shape, threads_);
    made_.fetch_add(1);
  }
  return *slot;
}

}  // namespace lomo::onednn
