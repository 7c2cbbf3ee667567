// The backend's matrix products, kept by shape.
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
#include "onednn/product.h"

namespace lomo::onednn {

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
