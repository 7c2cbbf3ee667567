// The calling thread's OpenMP thread count for the length of a scope: oneDNN looks at it when it makes a primitive and when it runs one.
#pragma once

#include <omp.h>

namespace lomo::onednn {

class Threads {
 public:
  explicit Threads(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace lomo::onednn
