// What CMake generates: the kernels of every file of native/ops, and their device code.
#pragma once

#include <cstddef>

#include "lomo/registry.h"

namespace lomo {

// A fatbin of one .cu file; ended by a row without name.
struct DeviceCode {
  const char* file;
  const void* image;
};

extern const KernelSet kernel_set;
extern const DeviceCode device_code[];
// The architectures the device code is for, as 'sm_80 sm_90 compute_90'; empty where the addon was built without nvcc.
extern const char* const architectures;

}  // namespace lomo
