// embedding: rows of a table by id, a block a token; an id outside the table is reported, and its row is NaN.
#include "gpu/storage.h"

namespace lomo::embedding {

struct LookupArgs {
  const int* ids;
  const void* w;
  void* y;
  int* fault;
  std::int64_t tokens, h, vocabulary;
  bool wide;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class S, class D> __device__ __forceinline__ void lookup(const LookupArgs& a) {
  for (i64 t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const int id = a.ids[t];
    D* y = static_cast<D*>(a.y) + t * a.h;
    if (id < 0 || id >= a.vocabulary) {
      if (threadIdx.x == 0 && atomicCAS(&a.fault[0], 0, 1) == 0) a.fault[1] = id, a.fault[2] = static_cast<int>(t), a.fault[3] = static_cast<int>(a.vocabulary);
      for (i64 j = threadIdx.x; j < a.h; j += blockDim.x) put(y + j, __uint_as_float(0x7fc00000u));
      continue;
    }
    const S* w = static_cast<const S*>(a.w) + id * a.h;
    const i64 groups = a.wide ? a.h / 8 : 0;
    for (i64 k = threadIdx.x; k < groups; k += blockDim.x) {
      float v[8];
      load8(v, w + 8 * k);
      store8(y + 8 * k, v);
    }
    for (i64 j = 8 * groups + threadIdx.x; j < a.h; j += blockDim.x) put(y + j, get(w + j));
  }
}

LOMO_KERNEL(embedding_f32_f32, 256, LookupArgs, lookup<float, float>)  // 48 registers, 0 bytes
LOMO_KERNEL(embedding_bf16_bf16, 256, LookupArgs, lookup<bf16, bf16>)  // 48 registers, 0 bytes
LOMO_KERNEL(embedding_f16_f32, 256, LookupArgs, lookup<f16, float>)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::embedding

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void lookup(const Call& call) {
  const Operand &ids = call.in(0), &w = call.in(1), &y = call.out(0);
  const std::int64_t tokens = ids.count(), h = w.last();
  same_size("embedding", "y", y.count(), tokens * h);
  const embedding::LookupArgs args{ids.as<const int>(), w.data, y.data, fault_cell(call), tokens, h, w.rows(), h % 8 == 0 && wide({w.data, y.data})};
  start(call, KernelName("embedding", w.dtype, y.dtype), row_grid(tokens), &args);
}

}  // namespace

extern const Kernel kernels_embedding[] = {
    {"embedding", "", accepts<"ir||r">, lookup, nullptr},
    {"embedding", "", accepts<"ih||f">, lookup, nullptr},
    {},
};

}  // namespace lomo
#endif
