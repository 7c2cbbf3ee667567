// The addon: one class, NativeBackend, with the verbs and nothing else. Loading it opens nothing of CUDA; making a backend does.
#include "addon/device.h"
#include "lomo/verbs.h"

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeBackend", lomo::Verbs<lomo::CudaDevice>::define(env));
  return exports;
}

NODE_API_MODULE(lomo_cuda, init)
