// lomo_update: unscale, clip, decay, step, round and gate in one sweep over a tile of the gradient and the parameter; with one operand
// more, the sums of its rows. f16 is swept once before: a value beyond 65504 closes the gate, and nothing is written.
#include "gpu/update.h"

namespace lomo::lomo_update {

#if defined(LOMO_DEVICE)
using namespace gpu;

struct Next {
  float lr, keep;
  __device__ __forceinline__ explicit Next(const UpdateArgs& a)
      : lr(a.scalars[at_lr]), keep(static_cast<float>(1.0 - static_cast<double>(lr) * a.weight_decay)) {}
  __device__ __forceinline__ float operator()(i64, float p, float g) const { return p * keep - g * lr; }
};
template <class T> __device__ __forceinline__ void update(const UpdateArgs& a) { write_update<T>(a, Next(a)); }
__device__ __forceinline__ void overflow(const UpdateArgs& a) { close_on_overflow(a, Next(a)); }
LOMO_KERNEL(lomo_update_f32, 256, UpdateArgs, update<float>)  // 40 registers, 128 bytes
LOMO_KERNEL(lomo_update_bf16, 256, UpdateArgs, update<bf16>)  // 48 registers, 128 bytes
LOMO_KERNEL(lomo_update_f16, 256, UpdateArgs, update<f16>)  // 40 registers, 128 bytes
LOMO_KERNEL(lomo_update_overflow, 256, UpdateArgs, overflow)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::lomo_update

#if !defined(LOMO_DEVICE)
#include "addon/step.h"

namespace lomo {
namespace {

void update(const Call& call) {
  const gpu::UpdateArgs args = update_args(call, "lomo_update", call.in(1), call.in(0).rows());
  if (call.flag(6)) check_gate(call, call.in(0), call.inout(1), args.index);
  if (call.inout(0).dtype == DType::f16) start(call, "lomo_update_overflow", sweep_grid(call.in(0).count(), 4), &args);
  start(call, KernelName("lomo_update", call.inout(0).dtype), update_grid(args), &args);
}

}  // namespace

extern const Kernel kernels_lomo_update[] = {
    {"lomo_update", "key element index weight_decay clip_value rounding check", accepts<"ff|pi|">, update, nullptr},
    {"lomo_update", "key element index weight_decay clip_value rounding check", accepts<"ff|pi|f">, update, nullptr},
    {},
};

}  // namespace lomo
#endif
