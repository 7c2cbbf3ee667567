// What can be asked of a machine's GPUs without a backend: which there are, how much memory is free, who holds it.
#pragma once

#include <napi.h>

namespace lomo {

// survey({ driver }): { path, version, gpus: [{ name, architecture, multiprocessors, memory, bus }] }; makes no context. Throws what Driver throws.
Napi::Value survey(const Napi::CallbackInfo& info);

// memory({ driver, device }): { free, total } as the driver sees them in this process's context, which is made for the moment where there is none.
Napi::Value memory_info(const Napi::CallbackInfo& info);

// occupancy({ driver, nvml, device }): { path, version, free, total, holders: [{ pid, name, bytes }] } by NVML. Throws what Driver and Nvml throw.
Napi::Value occupancy(const Napi::CallbackInfo& info);

}  // namespace lomo
