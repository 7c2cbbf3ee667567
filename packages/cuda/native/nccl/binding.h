// What the addon exports for communicators besides the verbs: functions over a NativeBackend.
#pragma once

#include <napi.h>

namespace lomo {

// nccl(backend): { name, version, path }; opens NCCL. communicatorId(backend): Uint8Array of 128 bytes.
// join(backend, rank, size, id: Uint8Array, timeout in ms): the communicator's number, an attribute of its kernels.
// abort(backend, number, why).
void export_communicators(Napi::Env env, Napi::Object exports);

}  // namespace lomo
