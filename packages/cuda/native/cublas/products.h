// Matrix products by cuBLASLt: one prepared operation a shape, the algorithm of its class.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cublas/choices.h"
#include "cublas/library.h"

namespace lomo {

class Products {
 public:
  // `path` names libcublasLt.so, or is empty; `folders` are searched besides.
  Products(std::string path, std::vector<std::string> folders) : path_(std::move(path)), folders_(std::move(folders)), choices_(lt_) {}
  ~Products();
  // With the device's context current. Throws MissingLibrary, WrongLibrary, CublasError.
  void open() { lt_.open(path_, folders_); }
  // Enqueues. Prepares a shape the first time it comes. Throws CublasError.
  void run(const Product& p, const ProductData& data, cu::Stream stream);
  Choices& choices() { return choices_; }
  const std::string& path() const { return lt_.path(); }
  std::string version() const { return lt_.version(); }
  // Shapes prepared so far.
  std::uint64_t allocations() const { return made_.load(std::memory_order_relaxed); }

 private:
  struct Prepared {
    Problem problem;
    bool wide = false;
    cublas::Algorithm algorithm{};
  };
  const Prepared& prepare(const Product& p, bool wide);

  std::string path_;
  std::vector<std::string> folders_;
  CublasLt lt_;
  Choices choices_;
  std::vector<Prepared> prepared_;
  std::atomic<std::uint64_t> made_{0};
};

}  // namespace lomo
