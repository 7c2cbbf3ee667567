// The CUDA driver, opened at run time, and its results as typed errors that say what to do next.
#pragma once

#include <source_location>
#include <string>
#include <vector>

#include "driver/api.h"
#include "driver/library.h"

namespace lomo {

// The oldest driver that runs what nvcc 13.0 makes.
constexpr int oldest_driver = 13000;

class Driver : public cu::Entries {
 public:
  // `path` names libcuda.so.1, or is empty. Throws MissingDriver, DriverTooOld, NoDevice, WrongLibrary.
  explicit Driver(const std::string& path);

  const std::string& path() const { return library_.path(); }
  int version() const { return version_; }  // 13000 is 13.0
  int devices() const { return devices_; }

  // Throws where `result` is no success: OutOfMemory, StickyDeviceError, DeviceUnavailable, WrongArchitecture, CudaError.
  void check(cu::Result result, const char* doing, const std::source_location& at = std::source_location::current()) const;
  // 'CUDA_ERROR_OUT_OF_MEMORY (2): out of memory'
  std::string spell(cu::Result result) const;

 private:
  Library library_;
  int version_ = 0, devices_ = 0;
};

}  // namespace lomo
