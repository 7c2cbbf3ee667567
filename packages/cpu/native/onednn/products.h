// The backend's matrix products: a cache of oneDNN primitives, and a route through f32 where oneDNN lacks a combination of dtypes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "lomo/kernel.h"
#include "onednn/library.h"
#include "onednn/primitive.h"

namespace lomo::onednn {

// A product of one shape. Where oneDNN has its dtypes, it works on the operands as they lie; else they pass through the workspace, as
// f32. A transposed `a` is a sum over tokens: it runs in pieces, its rows split over threads by us (see products.cpp).
class Product {
 public:
  Product(const Library& library, const Shape& shape, int threads);

  std::size_t workspace() const { return total_; }
  // Call on the executor's thread, whose OpenMP thread count is the backend's.
  void run(const void* a, const void* b, const void* bias, void* c, void* workspace) const;

 private:
  // One product per piece of the inner dimension; `later` and `last` add to what is there. Null where not needed.
  struct Pieces {
    std::unique_ptr<Primitive> first, later, last;
    bool exist() const;
    std::size_t scratchpad() const;
  };
  Pieces make(const Library& library, std::int64_t rows) const;
  bool arrange(const Library& library, bool pack);
  void multiply(const Pieces& pieces, int lane, std::int64_t row, Pointers p) const;
  std::size_t place(std::size_t bytes);

  Shape shape_, inner_;  // as asked for; as given to oneDNN
  int threads_;
  std::int64_t step_;         // inner elements per piece
  std::int64_t panel_ = 0;    // rows per thread where we split the rows, else all
  int panels_ = 1;
  Pieces whole_, rest_;       // for panel_ rows; for the last panel where it is shorter
  bool pack_in_ = false, pack_out_ = false;  // operands, result pass through the workspace
  std::size_t a_ = 0, b_ = 0, bias_ = 0, c_ = 0, scratchpad_ = 0, lane_bytes_ = 0, total_ = 0;  // byte offsets in the workspace; sizes
};

class Products {
 public:
  Products(const std::string& path, std::int32_t threads) : library_(path), threads_(threads) {}

  // The product of that shape, made on first use; either thread. It lives as long as the backend.
  const Product& get(const Shape& shape);
  const Library& library() const { return library_; }
  std::uint64_t made() const { return made_.load(); }

 private:
  struct Hash { std::size_t operator()(const Shape& s) const; };

  Library library_;
  std::int32_t threads_;
  std::mutex mutex_;
  std::atomic<std::uint64_t> made_{0};
  std::unordered_map<Shape, std::unique_ptr<Product>, Hash> cache_;  // after library_: primitives go first
};

}  // namespace lomo::onednn

namespace lomo {

// The CPU backend's context: its products.
struct Context {
  onednn::Products products;
};

}  // namespace lomo
