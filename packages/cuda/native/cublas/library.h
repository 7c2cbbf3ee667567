// cuBLASLt opened at run time; products prepared for it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cublas/api.h"
#include "cublas/product.h"
#include "driver/library.h"

namespace lomo {

// A product as the library sees it. Given back by CublasLt::destroy.
struct Problem {
  Product product;
  cublas::Operation operation = nullptr;
  cublas::Layout a = nullptr, b = nullptr, c = nullptr;
};

struct ProductData {
  const void *a, *b;
  void* c;
  float alpha = 1, beta = 0;
  void* workspace = nullptr;  // product_workspace bytes
};

class CublasLt {
 public:
  ~CublasLt();
  // With the device's context current. `path` names the library, or is empty; `folders` are searched besides. Throws MissingLibrary,
  // WrongLibrary, CublasError.
  void open(const std::string& path, const std::vector<std::string>& folders);
  const std::string& path() const { return library_->path(); }
  std::string version() const;

  Problem create(const Product& p) const;
  void destroy(const Problem& p) const;
  // At most `wanted` algorithms for a problem, the library's favourite first, all of them deterministic: a sum over k is one sum, in one
  // order. None where the library knows none.
  std::vector<cublas::Heuristic> suggest(const Problem& p, bool wide, int wanted) const;
  // Whether an algorithm multiplies this problem within the workspace.
  bool fits(const Problem& p, const cublas::Algorithm& algorithm) const;
  // Enqueues. Throws CublasError.
  void multiply(const Problem& p, const ProductData& data, const cublas::Algorithm& algorithm, cu::Stream stream) const;

 private:
  bool deterministic(const cublas::Algorithm& algorithm) const;
  void check(cublas::Status status, const char* doing, const Product* p = nullptr) const;

  std::unique_ptr<Library> library_;
  cublas::Handle handle_ = nullptr;
  cublas::Entries lt_;
};

}  // namespace lomo
