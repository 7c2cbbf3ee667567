// adamw_update: torch.optim.AdamW's step (decoupled decay, bias-corrected moments) on a tile, with the same gradient, rounding and gate
// as LOMO. The step's numbers are computed once a block, in double.
#include "gpu/update.h"

namespace lomo::adamw_update {

struct AdamArgs {
  gpu::UpdateArgs update;
  float *m, *v;
  double beta1, beta2, eps;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

__device__ __forceinline__ double power(double b, int t) {
  double r = 1.0;
  for (; t > 0; t /= 2, b *= b)
    if (t % 2 != 0) r *= b;
  return r;
}

struct Step {
  float keep, step, correction, f1, rest1, f2, rest2, eps;
};

// Every thread of the block gets the numbers; they are on its shared memory.
__device__ __forceinline__ Step step_of(const AdamArgs& a) {
  LOMO_SHARED(Step, shared, 1);
  if (threadIdx.x == 0) {
    const double lr = a.update.scalars[at_lr];
    const int t = a.update.counters[at_step];
    Step s;
    s.keep = static_cast<float>(1.0 - lr * a.update.weight_decay);
    s.step = static_cast<float>(lr / (1.0 - power(a.beta1, t)));
    s.correction = static_cast<float>(sqrt(1.0 - power(a.beta2, t)));
    s.f1 = static_cast<float>(a.beta1), s.rest1 = static_cast<float>(1.0 - a.beta1);
    s.f2 = static_cast<float>(a.beta2), s.rest2 = static_cast<float>(1.0 - a.beta2);
    s.eps = static_cast<float>(a.eps);
    shared[0] = s;
  }
  __syncthreads();
  return shared[0];
}

struct Next {
  float *m, *v;
  Step s;
  __device__ __forceinline__ explicit Next(const AdamArgs& a) : m(a.m), v(a.v), s(step_of(a)) {}
  __device__ __forceinline__ float moved(i64 i, float p, float x, float& m2, float& v2) const {
    m2 = m[i] * s.f1 + x * s.rest1;
    v2 = v[i] * s.f2 + x * x * s.rest2;
    return p * s.keep - s.step * m2 / (sqrtf(v2) / s.correction + s.eps);
  }
  // Asked once an element: writes the moments.
  __device__ __forceinline__ float operator()(i64 i, float p, float g) const {
    float m2, v2;
    const float x = moved(i, p, g, m2, v2);
    m[i] = m2;
    v[i] = v2;
    return x;
  }
};
template <class T> __device__ __forceinline__ void update(const AdamArgs& a) { write_update<T>(a.update, Next(a)); }
__device__ __forceinline__ void overflow(const AdamArgs& a) {
  const Next next(a);
  close_on_overflow(a.update, [&](i64 i, float p, float g) {
    float m, v;
    return next.moved(i, p, g, m, v);
  });
}
LOMO_KERNEL(adamw_update_f32, 256, AdamArgs, update<float>)  // 64 registers, 160 bytes
LOMO_KERNEL(adamw_update_bf16, 256, AdamArgs, update<bf16>)  // 64 registers, 160 bytes
LOMO_KERNEL(adamw_update_f16, 256, AdamArgs, update<f16>)  // 64 registers, 160 bytes
LOMO_KERNEL(adamw_update_overflow, 256, AdamArgs, overflow)  // 64 registers, 32 bytes
#endif

}  // namespace lomo::adamw_update

#if !defined(LOMO_DEVICE)
#include "addon/step.h"

namespace lomo {
namespace {

void update(const Call& call) {
  const std::int64_t count = call.inout(0).count();
  same_size("adamw_update", "m", call.inout(1).count(), count);
  same_size("adamw_update", "v", call.inout(2).count(), count);
  const adamw_update::AdamArgs args{update_args(call, "adamw_update", call.in(1), call.in(0).rows()), call.inout(1).as<float>(), call.inout(2).as<float>(), call.attr(7), call.attr(8), call.attr(9)};
  if (call.flag(6)) check_gate(call, call.in(0), call.inout(3), args.update.index);
  if (call.inout(0).dtype == DType::f16) start(call, "adamw_update_overflow", sweep_grid(count, 4), &args);
  start(call, KernelName("adamw_update", call.inout(0).dtype), update_grid(args.update), &args);
}

constexpr const char* attributes = "key element index weight_decay clip_value rounding check beta1 beta2 eps";

}  // namespace

extern const Kernel kernels_adamw_update[] = {
    {"adamw_update", attributes, accepts<"ff|pffi|">, update, nullptr},
    {"adamw_update", attributes, accepts<"ff|pffi|f">, update, nullptr},
    {},
};

}  // namespace lomo
#endif
