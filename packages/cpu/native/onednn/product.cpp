// How a product is cut so that oneDNN's choices cannot show in its bits. Measured with 2.6.3 and 3.2.0:
//
// AVX-512. Plain products: rows are bit-equal whatever the row count and the threads, so they go in one call. With a transposed `a` (a sum
// over tokens) one of two implementations is picked by how the rows lie; one adds up the whole inner dimension, the other blocks of 384;
// and where tiles are few the sum is split over threads (2.6: from some 1,536 on; 3.2: from 256). So such a sum runs in pieces of 256,
// on which both agree and which divide the chunk of 512 tokens, and each thread gets rows of its own with single-threaded primitives.
// A single row or column takes yet other code: two of them do not. The cost is 4 % or less.
//
// Less than AVX-512. Rows go six by six, and one to three rows at the end of a block, whose size varies, add in another order: so every
// product goes in panels of 48 rows, the last one filled up to a multiple of six, each single-threaded.
#include "onednn/product.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <string>

#include "lomo/error.h"
#include "onednn/repack.h"
#include "onednn/threads.h"

namespace lomo::onednn {
namespace {

constexpr std::int64_t transposed_step = 256;
constexpr std::int64_t long_step = 2048;   // f32: longer sums write their result to memory for every few hundred terms, and ran at 83 % of the rate
constexpr std::int64_t least_rows = 64;    // a thread takes, AVX-512
constexpr std::int64_t wide_unit = 16;     // rows of a panel are a multiple of this, AVX-512
constexpr std::int64_t narrow_panel = 48;  // rows, less than AVX-512
constexpr std::int64_t narrow_unit = 6;

std::int64_t up(std::int64_t x, std::int64_t unit) { return (x + unit - 1) / unit * unit; }

std::int64_t step_of(const Shape& s) { return s.ta ? transposed_step : s.in == DType::f32 && s.out == DType::f32 ? std::min(s.k, long_step) : s.k; }

std::size_t bytes(std::int64_t count, DType t) { return static_cast<std::size_t>(count) * size_of(t); }

}  // namespace

bool Product::Pieces::exist() const {
  for (const auto* p : {first.get(), later.get(), last.get()})
    if (p != nullptr && !p->exists()) return false;
  return true;
}

std::size_t Product::Pieces::scratchpad() const {
  std::size_t most = 0;
  for (const auto* p : {first.get(), later.get(), last.get()})
    if (p != nullptr) most = std::max(most, p->scratchpad());
  return most;
}

std::size_t Product::place(std::size_t size) {
  const std::size_t at = total_;
  total_ += (size + 63) / 64 * 64;
  return at;
}

// Panels of rows, for a library that is `wide` (has AVX-512) or not.
void Product::divide(bool wide) {
  alone_ = !wide || inner_.ta;
  const std::int64_t m = inner_.m;
  std::int64_t unit = 1, least = 1;
  if (!wide) {
    panel_ = narrow_panel;
    unit = narrow_unit;
  } else if (inner_.ta) {
    panel_ = up(std::max(least_rows, (m + threads_ - 1) / threads_), wide_unit);
    least = 2;
  } else {
    panel_ = m;
  }
  full_ = m / panel_;
  left_ = m % panel_;
  rest_.m = left_ == 0 ? 0 : std::max(least, up(left_, unit));
  pack_rest_ = rest_.m != left_;
  const std::int64_t panels = full_ + (left_ > 0 ? 1 : 0);
  lanes_ = alone_ ? static_cast<int>(std::min<std::int64_t>(panels, threads_)) : 1;
}

Product::Pieces Product::make(const Library& library, Shape s) const {
  const Threads threads(alone_ ? 1 : threads_);
  const std::int64_t k = s.k;
  const auto piece = [&](std::int64_t length, bool add) {
    s.k = length;
    s.add = add;
    s.bias = inner_.bias && !add;
    return std::make_unique<Primitive>(library, s, lanes_);
  };
  Pieces p;
  p.first = piece(std::min(step_, k), inner_.add);
  if (k >= 2 * step_) p.later = piece(step_, true);
  if (k > step_ && k % step_ != 0) p.last = piece(k % step_, true);
  return p;
}

// False where oneDNN lacks one of the primitives.
bool Product::arrange(const Library& library, bool pack) {
  pack_in_ = pack;
  if (pack) {
    inner_.lda = inner_.ta ? inner_.m : inner_.k;
    inner_.ldb = inner_.tb ? inner_.k : inner_.n;
  }
  pack_out_ = inner_.n != shape_.n || inner_.out != shape_.out;
  const std::int64_t rows = rest_.m;
  rest_ = inner_;
  rest_.m = rows;
  if (pack_rest_) rest_.lda = inner_.ta ? rows : inner_.k;
  if (full_ > 0) {
    Shape panel = inner_;
    panel.m = panel_;
    panel_pieces_ = make(library, panel);
  }
  if (rows > 0) rest_pieces_ = make(library, rest_);
  return panel_pieces_.exist() && rest_pieces_.exist();
}

Product::Product(const Library& library, const Shape& shape, int threads)
    : shape_(shape), inner_(shape), threads_(threads), step_(step_of(shape)) {
  divide(library.wide());
  const bool thin = alone_ && shape.n == 1;
  if (thin) inner_.n = 2;
  // Pieces meet in f32, so that a bf16 result is rounded once.
  if (step_ < shape.k) inner_.out = DType::f32;
  if (!arrange(library, thin)) {
    inner_.in = inner_.out = DType::f32;
    if (!arrange(library, thin || shape.in != DType::f32))
      throw Error("LibraryError", "oneDNN " + library.version() + " has no f32 product of [" + std::to_string(shape.m) + ", " + std::to_string(shape.k) + "] and [" +
                                      std::to_string(shape.k) + ", " + std::to_string(shape.n) + "]");
  }
  if (pack_in_) {
    a_ = place(bytes(inner_.m * inner_.k, inner_.in));
    b_ = place(bytes(inner_.k * inner_.n, inner_.in));
    if (shape.bias) bias_ = place(bytes(inner_.n, inner_.in));
  }
  if (pack_out_) c_ = place(bytes(inner_.m * inner_.n, inner_.out));
  if (pack_rest_) {
    rest_a_ = place(bytes(rest_.m * rest_.k, rest_.in));
    rest_c_ = place(bytes(rest_.m * rest_.n, rest_.out));
  }
  lane_bytes_ = (std::max(panel_pieces_.scratchpad(), rest_pieces_.scratchpad()) + 63) / 64 * 64;
  scratchpad_ = place(lane_bytes_ * static_cast<std::size_t>(lanes_));
}

void Product::multiply(const Pieces& pieces, const Shape& s, int lane, Pointers p) const {
  const auto size = static_cast<std::int64_t>(size_of(s.in));
  for (std::int64_t k = 0; k < s.k; k += step_) {
    (k == 0 ? pieces.first : s.k - k >= step_ ? pieces.later : pieces.last)->run(lane, p);
    p.a = static_cast<const char*>(p.a) + step_ * (s.ta ? s.lda : 1) * size;
    p.b = static_cast<const char*>(p.b) + step_ * (s.tb ? 1 : s.ldb) * size;
  }
}

// The last panel. `p` already points at its rows, and p.scratchpad at the start of the workspace.
void Product::run_rest(int lane, Pointers p) const {
  auto* base = static_cast<char*>(p.scratchpad);
  p.scratchpad = base + scratchpad_ + lane_bytes_ * static_cast<std::size_t>(lane);
  if (!pack_rest_) return multiply(rest_pieces_, rest_, lane, p);
  const Shape &r = rest_, &i = inner_;
  const Matrix a_in{i.ta ? i.k : left_, i.ta ? left_ : i.k, i.lda}, a_out{i.ta ? i.k : r.m, i.ta ? r.m : i.k, r.lda};
  const Matrix c_out{left_, i.n, i.n}, c_in{r.m, i.n, i.n};
  void* const c = p.c;
  repack(p.a, i.in, a_in, base + rest_a_, i.in, a_out);
  p.a = base + rest_a_;
  p.c = base + rest_c_;
  if (i.add) repack(c, i.out, c_out, p.c, i.out, c_in);
  multiply(rest_pieces_, rest_, lane, p);
  repack(p.c, i.out, c_in, c, i.out, c_out);
}

void Product::run_panels(const Pointers& whole) const {
  const Shape& s = inner_;
  const auto panel = [&](std::int64_t index, int lane) {
    const std::int64_t row = index * panel_;
    Pointers p = whole;
    p.a = static_cast<const char*>(p.a) + row * (s.ta ? 1 : s.lda) * static_cast<std::int64_t>(size_of(s.in));
    p.c = static_cast<char*>(p.c) + row * s.n * static_cast<std::int64_t>(size_of(s.out));
    if (index == full_) return run_rest(lane, p);
    p.scratchpad = static_cast<char*>(p.scratchpad) + scratchpad_ + lane_bytes_ * static_cast<std::size_t>(lane);
    multiply(panel_pieces_, s, lane, p);
  };
  const std::int64_t panels = full_ + (left_ > 0 ? 1 : 0);
  if (lanes_ == 1) {
    const Threads threads(alone_ ? 1 : threads_);
    for (std::int64_t index = 0; index < panels; ++index) panel(index, 0);
    return;
  }
  std::exception_ptr failure;  // an exception may not leave a parallel region
#pragma omp parallel for schedule(static) num_threads(lanes_)
  for (std::int64_t index = 0; index < panels; ++index) {
    try {
      panel(index, omp_get_thread_num());
    } catch (...) {
#pragma omp critical(lomo_product)
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
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
  run_panels({a, b, bias, result, base});
  if (pack_out_) repack(result, i.out, inside, c, s.out, outside);
}

}  // namespace lomo::onednn
