// Ranges for a profiler, by the NVTX 3 protocol: the profiler's injection library is opened, is given a table, and writes the functions into
// it that it wants called. Nothing of NVTX is compiled in or linked.
#pragma once

#include <memory>
#include <string>

#include "driver/library.h"

namespace lomo {

class Nvtx {
 public:
  // `path`: the injection library, which profilers name in NVTX_INJECTION64_PATH; empty: off, nothing is opened. Throws MissingLibrary, or
  // WrongLibrary where it is no injection library or takes no ranges.
  explicit Nvtx(const std::string& path);

  // Ranges of the thread that calls, nested; nothing where off.
  void push(const char* name) const {
    if (push_ != nullptr) push_(name);
  }
  void pop() const {
    if (pop_ != nullptr) pop_();
  }

 private:
  std::unique_ptr<Library> library_;
  int (*push_)(const char*) = nullptr;
  int (*pop_)() = nullptr;
};

}  // namespace lomo
