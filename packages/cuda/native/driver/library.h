// A shared library opened at run time; where it is not found, the error lists every path tried with the loader's own words.
#pragma once

#include <string>
#include <vector>

namespace lomo {

struct Wanted {
  const char* name;                     // 'the CUDA driver'
  std::string given;                    // a path the user named, tried alone where not empty
  std::vector<std::string> files;       // 'libcuda.so.1'
  std::vector<std::string> folders;     // searched after the loader's own paths
  std::string next_step;                // what brings it
};

class Library {
 public:
  // Throws MissingLibrary.
  explicit Library(const Wanted& wanted);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // Throws WrongLibrary where the symbol is missing.
  void* symbol(const char* name) const;
  const std::string& path() const { return path_; }

 private:
  void* handle_ = nullptr;
  std::string name_, path_;
};

}  // namespace lomo
