// Which algorithm multiplies the products of a class: recorded by an earlier run, measured, or else the library's first suggestion. Once
// one has been chosen it stays.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "cublas/library.h"
#include "driver/driver.h"

namespace lomo {

struct Choice {
  ProductClass of;
  cublas::Algorithm algorithm{};
  double microseconds = 0;         // of the measurement; 0: not measured
  int candidates = 0;              // that were measured
  std::vector<std::int64_t> not_for;  // numbers of rows that the algorithm does not do: those have one of their own
};

// A choice as it is kept outside: the class by its name, the algorithm as hexadecimal digits.
struct Recorded {
  std::string product, algorithm;
  double microseconds = 0;
  int candidates = 0;
  std::vector<std::int64_t> not_for;
};

class Choices {
 public:
  explicit Choices(const CublasLt& lt) : lt_(lt) {}

  // JavaScript's thread: products of this class will come, or are asked about by a plan.
  void expect(const ProductClass& c);
  // In order of choice; then what was adopted and has not been needed yet, so that it is kept for the next run.
  std::vector<Recorded> list() const;
  // What `list` gave: `product` and `algorithm` of each. Classes that have an algorithm keep it. Throws BadOption.
  void adopt(const std::vector<Recorded>& list);

  // The executor's thread. Chooses where nothing was chosen. Throws CublasError where the library has no deterministic algorithm.
  const Choice& of(const ProductClass& c);
  // The algorithm for one product: its class's, or, where that one does not do this many rows, the library's first for it, which is noted.
  cublas::Algorithm algorithm_for(const Problem& p, bool wide);
  // Measures the candidates of every expected class that has no algorithm yet, one after the other, in `scratch`: nothing is allocated on
  // the GPU. Waits for it.
  void tune(const Driver& driver, cu::Stream stream, void* scratch, std::size_t bytes);

 private:
  Choice* known(const ProductClass& c);
  Choice& add(Choice choice);
  cublas::Algorithm first(const ProductClass& c) const;

  const CublasLt& lt_;
  mutable std::mutex mutex_;
  std::vector<ProductClass> expected_;
  std::deque<Choice> chosen_;
  std::vector<std::pair<std::string, cublas::Algorithm>> recorded_;
};

}  // namespace lomo
