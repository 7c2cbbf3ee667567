// cross_entropy on whole rows of logits, and the three kernels that do it by tiles of the vocabulary; a block a row, logits read twice at
// most. Gradients overwrite the logits. A target outside the vocabulary is reported; its loss is NaN, so the gate closes.
#include "gpu/step.h"

namespace lomo::cross_entropy {

struct EntropyArgs {
  const int* targets;
  const float* scalars;
  float *logits, *loss, *lse;
  void* copy;  // the rounded gradient, or null
  int* fault;
  std::int64_t rows, n;
  int grad;
};
struct TileArgs {
  const int* targets;
  const float* logits;
  float* stats;
  std::int64_t rows, n, column;
};
struct FinishArgs {
  const float* stats;
  const int* targets;
  float *loss, *lse;
  std::int64_t rows;
};
struct GradArgs {
  const int* targets;
  const float *lse, *scalars;
  float* logits;
  std::int64_t rows, n, column;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

struct Softmax {
  float max;
  double sum;  // of exp(l - max)
};

// One read of a row: every thread keeps its own maximum and sum, then they meet.
__device__ __forceinline__ Softmax softmax_sum(const float* l, i64 n) {
  float max = -INFINITY, sum = 0;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    const float x = l[i];
    if (x > max) {
      sum *= expf(max - x);  // 0 where there was nothing
      max = x;
    }
    // What is -inf so far weighs nothing; NaN stays NaN.
    sum += expf(x - (max == -INFINITY ? 0.0f : max));
  }
  const float top = block_max(max);
  const double mine = max == -INFINITY && sum == sum ? 0.0 : static_cast<double>(sum) * static_cast<double>(expf(max - top));
  return {top, block_sum(mine)};
}

__device__ __forceinline__ double gradient_scale(const float* scalars) { return static_cast<double>(scalars[at_inverse_tokens]) * static_cast<double>(scalars[at_loss_scale]); }

template <class T> __device__ __forceinline__ void entropy(const EntropyArgs& a) {
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    float* l = a.logits + row * a.n;
    T* copy = a.copy == nullptr ? nullptr : static_cast<T*>(a.copy) + row * a.n;
    const int target = a.targets[row];
    const bool known = target < a.n, trained = target >= 0 && known;
    const float wanted = trained ? l[target] : 0.0f;
    const Softmax s = softmax_sum(l, a.n);  // meets: nobody writes before everybody has read `wanted`
    if (threadIdx.x == 0) {
      const double log_sum = static_cast<double>(s.max) + log(s.sum);
      a.lse[row] = static_cast<float>(log_sum);
      a.loss[row] = trained ? static_cast<float>(log_sum - static_cast<double>(wanted)) : known ? 0.0f : __uint_as_float(0x7fc00000u);
      if (!known && atomicCAS(&a.fault[0], 0, 2) == 0) a.fault[1] = target, a.fault[2] = static_cast<int>(row), a.fault[3] = static_cast<int>(a.n);
    }
    if (a.grad == 0) continue;
    const double scale = gradient_scale(a.scalars), factor = scale / s.sum;
    for (i64 i = threadIdx.x; i < a.n; i += blockDim.x) {
      float x = 0;
      if (trained) x = i == target ? static_cast<float>(static_cast<double>(expf(wanted - s.max)) * factor - scale) : expf(l[i] - s.max) * static_cast<float>(factor);
      l[i] = x;
      if (copy != nullptr) put(copy + i, x);
    }
  }
}

__device__ __forceinline__ void tile(const TileArgs& a) {
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const float* l = a.logits + row * a.n;
    const Softmax s = softmax_sum(l, a.n);
    if (threadIdx.x != 0) continue;
    float* to = a.stats + 3 * row;
    if (a.column == 0) {
      to[0] = s.max;
      to[1] = static_cast<float>(s.sum);
      to[2] = 0.0f;
    } else {
      const float top = to[0] > s.max ? to[0] : s.max;
      to[1] = static_cast<float>(static_cast<double>(to[1]) * exp(static_cast<double>(to[0]) - static_cast<double>(top)) + s.sum * exp(static_cast<double>(s.max) - static_cast<double>(top)));
      to[0] = top;
    }
    const i64 target = a.targets[row] - a.column;
    if (a.targets[row] >= 0 && target >= 0 && target < a.n) to[2] = l[target];
  }
}

__device__ __forceinline__ void finish(const FinishArgs& a) {
  for (i64 row = sweep_start(); row < a.rows; row += sweep_stride()) {
    const double log_sum = static_cast<double>(a.stats[3 * row]) + log(static_cast<double>(a.stats[3 * row + 1]));
    a.lse[row] = static_cast<float>(log_sum);
    a.loss[row] = a.targets[row] < 0 ? 0.0f : static_cast<float>(log_sum - static_cast<double>(a.stats[3 * row + 2]));
  }
}

__device__ __forceinline__ void grad(const GradArgs& a) {
  const double scale = gradient_scale(a.scalars);
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    float* l = a.logits + row * a.n;
    const bool trained = a.targets[row] >= 0;
    const i64 target = a.targets[row] - a.column;
    const float shift = a.lse[row];
    for (i64 i = threadIdx.x; i < a.n; i += blockDim.x) {
      if (!trained) l[i] = 0.0f;
      else if (i == target) l[i] = static_cast<float>((static_cast<double>(expf(l[i] - shift)) - 1.0) * scale);
      else l[i] = expf(l[i] - shift) * static_cast<float>(scale);
    }
  }
}
LOMO_KERNEL(cross_entropy_f32, 256, EntropyArgs, entropy<float>)  // 40 registers, 384 bytes
LOMO_KERNEL(cross_entropy_bf16, 256, EntropyArgs, entropy<bf16>)  // 40 registers, 384 bytes
LOMO_KERNEL(cross_entropy_tile_f32, 256, TileArgs, tile)  // 40 registers, 384 bytes
LOMO_KERNEL(cross_entropy_finish_f32, 256, FinishArgs, finish)  // 32 registers, 0 bytes
LOMO_KERNEL(cross_entropy_grad_f32, 256, GradArgs, grad)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::cross_entropy

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void entropy(const Call& call) {
  const Operand& logits = call.inout(0);
  const std::int64_t rows = call.in(0).count(), n = logits.last(), grad = call.integer(0);
  same_size("cross_entropy", "logits", logits.count(), rows * n);
  same_size("cross_entropy", "loss", call.out(0).count(), rows);
  same_size("cross_entropy", "lse", call.out(1).count(), rows);
  if (call.outs != (grad == 2 ? 3 : 2)) throw Error("BadShape", "cross_entropy: grad " + std::to_string(grad) + " goes with " + (grad == 2 ? "3" : "2") + " outputs, not " + std::to_string(call.outs));
  if (grad == 2) same_size("cross_entropy", "copy", call.out(2).count(), rows * n);
  const cross_entropy::EntropyArgs args{call.in(0).as<const int>(), call.in(1).as<const float>(), logits.as<float>(), call.out(0).as<float>(), call.out(1).as<float>(), grad == 2 ? call.out(2).data : nullptr, fault_cell(call), rows, n, static_cast<int>(grad)};
  start(call, KernelName("cross_entropy", grad == 2 ? call.out(2).dtype : DType::f32), row_grid(rows, n), &args);
}

void tile(const Call& call) {
  const std::int64_t rows = call.in(0).count(), n = call.in(1).last();
  same_size("cross_entropy_tile", "logits", call.in(1).count(), rows * n);
  same_size("cross_entropy_tile", "stats", call.inout(0).count(), rows * 3);
  const cross_entropy::TileArgs args{call.in(0).as<const int>(), call.in(1).as<const float>(), call.inout(0).as<float>(), rows, n, call.integer(0)};
  start(call, "cross_entropy_tile_f32", row_grid(rows, n), &args);
}

void finish(const Call& call) {
  const std::int64_t rows = call.in(1).count();
  same_size("cross_entropy_finish", "stats", call.in(0).count(), rows * 3);
  same_size("cross_entropy_finish", "loss", call.out(0).count(), rows);
  same_size("cross_entropy_finish", "lse", call.out(1).count(), rows);
  const cross_entropy::FinishArgs args{call.in(0).as<const float>(), call.in(1).as<const int>(), call.out(0).as<float>(), call.out(1).as<float>(), rows};
  start(call, "cross_entropy_finish_f32", sweep_grid(rows, 1), &args);
}

void grad(const Call& call) {
  const std::int64_t rows = call.in(0).count(), n = call.inout(0).last();
  same_size("cross_entropy_grad", "logits", call.inout(0).count(), rows * n);
  same_size("cross_entropy_grad", "lse", call.in(1).count(), rows);
  const cross_entropy::GradArgs args{call.in(0).as<const int>(), call.in(1).as<const float>(), call.in(2).as<const float>(), call.inout(0).as<float>(), rows, n, call.integer(0)};
  start(call, "cross_entropy_grad_f32", row_grid(rows, n), &args);
}

}  // namespace

extern const Kernel kernels_cross_entropy[] = {
    {"cross_entropy", "grad", accepts<"if|f|ff">, entropy, nullptr},
    {"cross_entropy", "grad", accepts<"if|f|ffr">, entropy, nullptr},
    {"cross_entropy_tile", "column", accepts<"if|f|">, tile, nullptr},
    {"cross_entropy_finish", "", accepts<"fi||ff">, finish, nullptr},
    {"cross_entropy_grad", "column", accepts<"iff|f|">, grad, nullptr},
    {},
};

}  // namespace lomo
#endif
