// NVML, opened at run time: who holds the memory of a GPU. It comes with the driver; nothing but messages and doctor asks it.
#pragma once

#include <string>
#include <vector>

#include "driver/library.h"
#include "nvml/api.h"

namespace lomo {

// A process that holds memory of a GPU.
struct Holder {
  unsigned pid = 0;
  std::string name;   // empty: not to be seen from here, as from inside a container
  double bytes = -1;  // -1: not told
};

struct Occupancy {
  double total = 0, free = 0;
  std::vector<Holder> holders;
};

class Nvml : private ml::Entries {
 public:
  // `path` names libnvidia-ml.so.1, or is empty. Throws MissingLibrary, WrongLibrary, NvmlError.
  explicit Nvml(const std::string& path);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  const std::string& path() const { return library_.path(); }
  // '580.65.06'
  std::string driver_version() const;
  // Of the GPU at a PCI address such as '0000:01:00.0'. Throws NvmlError.
  Occupancy occupancy(const std::string& bus) const;

 private:
  void check(ml::Result result, const char* doing) const;

  Library library_;
};

}  // namespace lomo
