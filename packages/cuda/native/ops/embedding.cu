// embedding: rows of a table by id, a block a token; an id outside the table is reported, and its row is NaN.
// embedding_grad_add: the first token of each id adds the rows of all tokens with that id, ascending: no atomics, no order left to chance.
#include "gpu/reduce.h"
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
struct GradArgs {
  const int* ids;
  const void* dy;
  float* g;
  std::int64_t tokens, h, rows, row;
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

template <class T> __device__ __forceinline__ void grad_add(const GradArgs& a) {
  LOMO_SHARED(int, found, 256);
  LOMO_SHARED(unsigned, votes, 8);
  const T* dy = static_cast<const T*>(a.dy);
  for (i64 t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const i64 id = a.ids[t], row = id - a.row;
    if (row < 0 || row >= a.rows) continue;
    bool earlier = false;
    for (i64 s = threadIdx.x; s < t; s += blockDim.x) earlier = earlier || a.ids[s] == id;
    if (block_any(earlier)) continue;
    float* g = a.g + row * a.h;
    // Tiles of 256 tokens; those with this id go into `found` in their order.
    for (i64 first = t; first < a.tokens; first += 256) {
      const bool same = first + threadIdx.x < a.tokens && a.ids[first + threadIdx.x] == id;
      const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, vote = __ballot_sync(whole_warp, same);
      if (lane == 0) votes[warp] = vote;
      __syncthreads();
      unsigned before = 0, count = 0;
      for (unsigned w = 0; w < 8; ++w) {
        if (w < warp) before += static_cast<unsigned>(__popc(votes[w]));
        count += static_cast<unsigned>(__popc(votes[w]));
      }
      if (same) found[before + static_cast<unsigned>(__popc(vote & ((1u << lane) - 1)))] = static_cast<int>(threadIdx.x);
      __syncthreads();
      if (count > 0)
        for (i64 j = threadIdx.x; j < a.h; j += blockDim.x) {
          float sum = g[j];
          for (unsigned i = 0; i < count; ++i) sum += get(dy + (first + found[i]) * a.h + j);
          g[j] = sum;
        }
      __syncthreads();
    }
  }
}
LOMO_KERNEL(embedding_f32_f32, 256, LookupArgs, lookup<float, float>)  // 48 registers, 0 bytes
LOMO_KERNEL(embedding_bf16_bf16, 256, LookupArgs, lookup<bf16, bf16>)  // 48 registers, 0 bytes
LOMO_KERNEL(embedding_f16_f32, 256, LookupArgs, lookup<f16, float>)  // 40 registers, 0 bytes
LOMO_KERNEL(embedding_grad_add_f32, 256, GradArgs, grad_add<float>)  // 48 registers, 1,184 bytes
LOMO_KERNEL(embedding_grad_add_bf16, 256, GradArgs, grad_add<bf16>)  // 48 registers, 1,184 bytes
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

void grad_add(const Call& call) {
  const Operand &dy = call.in(1), &g = call.inout(0);
  const std::int64_t tokens = call.in(0).count(), h = g.last();
  same_size("embedding_grad_add", "dy", dy.count(), tokens * h);
  const embedding::GradArgs args{call.in(0).as<const int>(), dy.data, g.as<float>(), tokens, h, g.rows(), call.integer(0)};
  start(call, KernelName("embedding_grad_add", dy.dtype), row_grid(tokens), &args);
}

}  // namespace

extern const Kernel kernels_embedding[] = {
    {"embedding", "", accepts<"ir||r">, lookup, nullptr},
    {"embedding", "", accepts<"ih||f">, lookup, nullptr},
    {"embedding_grad_add", "row", accepts<"ir|f|">, grad_add, nullptr},
    {},
};

}  // namespace lomo
#endif
