// oneDNN, opened at run time: nothing links against it, and a missing library is an error that says what to install.
#pragma once

#include <string>

#include "onednn/api.h"

namespace lomo::onednn {

class Library {
 public:
  // Opens `path`, or the first of libdnnl.so.2, libdnnl.so.3, libdnnl.so the loader finds where `path` is empty.
  // Throws MissingLibrary with every path tried and the loader's answer, or WrongLibrary (other version or threading runtime).
  explicit Library(const std::string& path);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  const Api& api() const { return api_; }
  int major() const { return version_.major; }
  std::string version() const;
  // Whether it computes with AVX-512 here.
  bool wide() const { return (api_.effective_cpu_isa() & isa_avx512) != 0; }
  const std::string& path() const { return path_; }  // of the file that was opened
  void* engine() const { return engine_; }

  // Throws LibraryError naming the call unless `status` is success.
  static void check(Status status, const char* call);

 private:
  void bind();

  void* handle_ = nullptr;
  std::string path_;
  Version version_{};
  Api api_{};
  void* engine_ = nullptr;
};

}  // namespace lomo::onednn
