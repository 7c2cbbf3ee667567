// The addon: NativeBackend with the verbs; KernelTable for plans; communicators; questions about the machine. Loading it opens nothing of CUDA.
#include "addon/device.h"
#include "addon/survey.h"
#include "addon/table.h"
#include "gpu/token_sum.h"
#include "lomo/verbs.h"
#include "nccl/binding.h"

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeBackend", lomo::Verbs<lomo::CudaDevice>::define(env));
  exports.Set("KernelTable", lomo::KernelTable::define(env));
  exports.Set("kernels", lomo::architectures);
  exports.Set("chunk", static_cast<double>(lomo::gpu::token_chunk));
  exports.Set("survey", Napi::Function::New(env, lomo::survey, "survey"));
  exports.Set("memory", Napi::Function::New(env, lomo::memory_info, "memory"));
  exports.Set("occupancy", Napi::Function::New(env, lomo::occupancy, "occupancy"));
  lomo::export_communicators(env, exports);
  return exports;
}

NODE_API_MODULE(lomo_cuda, init)
