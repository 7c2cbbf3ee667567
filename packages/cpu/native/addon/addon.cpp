// The addon: one class, NativeBackend, with the verbs and nothing else.
#include "addon/device.h"
#include "lomo/verbs.h"

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeBackend", lomo::Verbs<lomo::CpuDevice>::define(env));
  return exports;
}

NODE_API_MODULE(lomo_cpu, init)
