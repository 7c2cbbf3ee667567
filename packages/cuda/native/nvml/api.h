// The part of NVML's interface that we use, declared by hand: who holds a GPU's memory, and the driver's own version.
#pragma once

#include <cstddef>

namespace lomo::ml {

using Result = int;
struct DeviceHandle;
using Device = DeviceHandle*;

struct Memory {
  unsigned long long total, free, used;
};
struct Process {
  unsigned pid;
  unsigned long long bytes;  // all ones: not told
  unsigned instance, compute_instance;
};

constexpr Result success = 0, insufficient_size = 7;

// name in code, symbol in the library, parameters
#define LOMO_NVML_ENTRIES(X)                                                                           \
  X(init, "nvmlInit_v2", ())                                                                           \
  X(shutdown, "nvmlShutdown", ())                                                                      \
  X(driver_version_text, "nvmlSystemGetDriverVersion", (char*, unsigned))                              \
  X(device_by_bus, "nvmlDeviceGetHandleByPciBusId_v2", (const char*, Device*))                         \
  X(device_memory, "nvmlDeviceGetMemoryInfo", (Device, Memory*))                                       \
  X(compute_processes, "nvmlDeviceGetComputeRunningProcesses_v3", (Device, unsigned*, Process*))       \
  X(graphics_processes, "nvmlDeviceGetGraphicsRunningProcesses_v3", (Device, unsigned*, Process*))     \
  X(process_name, "nvmlSystemGetProcessName", (unsigned, char*, unsigned))

// The entries, filled by whoever opens the library.
struct Entries {
#define X(name, symbol, parameters) Result(*name) parameters = nullptr;
  LOMO_NVML_ENTRIES(X)
#undef X
};

}  // namespace lomo::ml
