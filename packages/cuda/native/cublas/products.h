// Matrix products by cuBLASLt, opened at run time: one prepared operation a shape, with the workspace of a pure table.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cublas/api.h"
#include "driver/library.h"
#include "lomo/kernel.h"

namespace lomo {

// c [m, n] = alpha op(a) op(b) + beta c, all row-major; the strides are those between rows. a and b are `in`; c is f32, or `in`.
struct Product {
  std::int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldc = 0;
  bool ta = false, tb = false;
  DType in = DType::f32, out = DType::f32;
  bool operator==(const Product&) const = default;
};

// Bytes of scratch for a product of this size: shapes alone decide, so that plans need no GPU.
constexpr std::size_t product_workspace(std::int64_t m, std::int64_t n) {
  constexpr std::int64_t most = std::int64_t{32} << 20;
  const std::int64_t wanted = m * n > most / 16 ? most : (16 * m * n + 255) / 256 * 256;
  return static_cast<std::size_t>(wanted);
}

struct ProductData {
  const void *a, *b;
  void* c;
  float alpha = 1, beta = 0;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

class Products {
 public:
  // `path` names libcublasLt.so, or is empty; `folders` are searched besides.
  Products(std::string path, std::vector<std::string> folders) : path_(std::move(path)), folders_(std::move(folders)) {}
  ~Products();
  // With the device's context current. Throws MissingLibrary, WrongLibrary, CublasError.
  void open();
  // Enqueues. Throws CublasError.
  void run(const Product& p, const ProductData& data, cu::Stream stream);
  const std::string& path() const { return library_->path(); }
  std::string version() const;

 private:
  struct Prepared {
    Product product;
    unsigned alignment = 0;
    std::size_t workspace = 0;
    cublas::Operation operation = nullptr;
    cublas::Layout a = nullptr, b = nullptr, c = nullptr;
    cublas::Algorithm algorithm{};
  };
  const Prepared& prepare(const Product& p, unsigned alignment, std::size_t workspace);
  void check(cublas::Status status, const char* doing, const Product* p = nullptr) const;

  std::string path_;
  std::vector<std::string> folders_;
  std::unique_ptr<Library> library_;
  cublas::Handle handle_ = nullptr;
  std::vector<Prepared> prepared_;
  cublas::Entries lt_;
};

}  // namespace lomo
