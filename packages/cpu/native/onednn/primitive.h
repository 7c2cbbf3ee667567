// One oneDNN matrix product, ready to run: c[m, n] = alpha op(a) op(b) (+ bias), or added to c. c is row-major and whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lomo/kernel.h"
#include "onednn/library.h"

namespace lomo::onednn {

// What a product is cached by, apart from the thread count, which is the backend's.
struct Shape {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0;  // elements from one stored row of a, b to the next
  bool ta = false, tb = false;    // a is stored [k, m], b is stored [n, k]
  bool add = false, bias = false;
  DType in = DType::f32, out = DType::f32;
  float alpha = 1;
  bool operator==(const Shape&) const = default;
};

// Where one run reads and writes.
struct Pointers {
  const void *a, *b, *bias;
  void *c, *scratchpad;
};

// Creating one looks at the calling thread's OpenMP thread count, and so does running it: both must be the same.
class Primitive {
 public:
  // `lanes`: how many threads may run it at once, each with a lane of its own.
  Primitive(const Library& library, const Shape& shape, int lanes);
  ~Primitive();
  Primitive(const Primitive&) = delete;
  Primitive& operator=(const Primitive&) = delete;

  // False where this oneDNN on this machine has no such product (bf16 without AVX-512, for one).
  bool exists() const { return primitive_ != nullptr; }
  std::size_t scratchpad() const { return scratchpad_; }
  const std::string& implementation() const { return implementation_; }
  void run(int lane, const Pointers& p) const;

 private:
  // oneDNN's objects for one thread.
  struct Lane {
    void* stream = nullptr;
    void* memories[5] = {};  // a, b, bias, c, scratchpad
  };
  void create(const Shape& shape);
  void destroy();

  const Library& library_;
  void* primitive_ = nullptr;
  std::vector<Lane> lanes_;
  std::size_t scratchpad_ = 0;
  std::string implementation_;
};

}  // namespace lomo::onednn
