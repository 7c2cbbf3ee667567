// The part of the CUDA driver's interface that we use, declared by hand: nothing of CUDA is needed to compile or to link.
#pragma once

#include <cstddef>

namespace lomo::cu {

using Result = int;
using Device = int;
using Address = unsigned long long;
struct ContextHandle;
struct StreamHandle;
struct EventHandle;
struct ModuleHandle;
struct FunctionHandle;
using Context = ContextHandle*;
using Stream = StreamHandle*;
using Event = EventHandle*;
using Module = ModuleHandle*;
using Function = FunctionHandle*;

enum : Result {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  not_initialized = 3,
  device_unavailable = 46,
  no_device = 100,
  invalid_device = 101,
  invalid_image = 200,
  invalid_context = 201,
  no_binary_for_gpu = 209,
  unsupported_ptx = 222,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  launch_failed = 719,
  system_driver_mismatch = 803,
};
enum Attribute : int { multiprocessors = 16, capability_major = 75, capability_minor = 76, shared_optin = 97 };
constexpr unsigned stream_non_blocking = 1, event_blocking_sync = 1, event_no_timing = 2, host_portable = 1;
constexpr int function_max_dynamic_shared = 8;

// name in code, symbol in the library, parameters
#define LOMO_DRIVER_ENTRIES(X)                                                                                                    \
  X(init, "cuInit", (unsigned))                                                                                                   \
  X(driver_version, "cuDriverGetVersion", (int*))                                                                                 \
  X(error_name, "cuGetErrorName", (Result, const char**))                                                                         \
  X(error_string, "cuGetErrorString", (Result, const char**))                                                                     \
  X(device_count, "cuDeviceGetCount", (int*))                                                                                     \
  X(device_get, "cuDeviceGet", (Device*, int))                                                                                    \
  X(device_name, "cuDeviceGetName", (char*, int, Device))                                                                         \
  X(device_attribute, "cuDeviceGetAttribute", (int*, int, Device))                                                                \
  X(device_bus, "cuDeviceGetPCIBusId", (char*, int, Device))                                                                      \
  X(device_memory, "cuDeviceTotalMem_v2", (std::size_t*, Device))                                                                 \
  X(context_retain, "cuDevicePrimaryCtxRetain", (Context*, Device))                                                               \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (Device))                                                                    \
  X(context_set, "cuCtxSetCurrent", (Context))                                                                                    \
  X(context_synchronize, "cuCtxSynchronize", ())                                                                                  \
  X(memory_info, "cuMemGetInfo_v2", (std::size_t*, std::size_t*))                                                                 \
  X(memory_allocate, "cuMemAlloc_v2", (Address*, std::size_t))                                                                    \
  X(memory_free, "cuMemFree_v2", (Address))                                                                                       \
  X(host_allocate, "cuMemHostAlloc", (void**, std::size_t, unsigned))                                                             \
  X(host_free, "cuMemFreeHost", (void*))                                                                                          \
  X(memset8, "cuMemsetD8Async", (Address, unsigned char, std::size_t, Stream))                                                    \
  X(copy, "cuMemcpyAsync", (Address, Address, std::size_t, Stream))                                                               \
  X(stream_create, "cuStreamCreate", (Stream*, unsigned))                                                                         \
  X(stream_destroy, "cuStreamDestroy_v2", (Stream))                                                                               \
  X(stream_synchronize, "cuStreamSynchronize", (Stream))                                                                          \
  X(stream_wait, "cuStreamWaitEvent", (Stream, Event, unsigned))                                                                  \
  X(event_create, "cuEventCreate", (Event*, unsigned))                                                                            \
  X(event_destroy, "cuEventDestroy_v2", (Event))                                                                                  \
  X(event_record, "cuEventRecord", (Event, Stream))                                                                               \
  X(event_query, "cuEventQuery", (Event))                                                                                         \
  X(event_synchronize, "cuEventSynchronize", (Event))                                                                             \
  X(event_elapsed, "cuEventElapsedTime", (float*, Event, Event))                                                                  \
  X(module_load, "cuModuleLoadData", (Module*, const void*))                                                                      \
  X(module_unload, "cuModuleUnload", (Module))                                                                                    \
  X(module_function, "cuModuleGetFunction", (Function*, Module, const char*))                                                     \
  X(function_set, "cuFuncSetAttribute", (Function, int, int))                                                                     \
  X(launch, "cuLaunchKernel", (Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**, void**))

// The entries, filled by whoever opens the library.
struct Entries {
#define X(name, symbol, parameters) Result(*name) parameters = nullptr;
  LOMO_DRIVER_ENTRIES(X)
#undef X
};

}  // namespace lomo::cu
