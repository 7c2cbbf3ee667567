// silu_mul: y = gate sigmoid(gate) up, and its gradient; the sigmoid is computed again rather than kept, by the fast division, which is
// right to 2 units and has no slow path to spill for.
#include "gpu/storage.h"

namespace lomo::silu_mul {

struct SiluArgs {
  const void *gate, *up, *dy;
  void *first, *second;  // y; or dgate and dup
  std::int64_t n;
  bool wide;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

__device__ __forceinline__ float silu(float g, float u) { return __fdividef(g, expf(-g) + 1.0f) * u; }

template <class T> __device__ __forceinline__ void forward(const SiluArgs& a) {
  const T *gate = static_cast<const T*>(a.gate), *up = static_cast<const T*>(a.up);
  T* y = static_cast<T*>(a.first);
  sweep(
      a.n, a.wide,
      [=](i64 i) {
        float g[8], u[8];
        load8(g, gate + i);
        load8(u, up + i);
#pragma unroll
        for (int k = 0; k < 8; ++k) g[k] = silu(g[k], u[k]);
        store8(y + i, g);
      },
      [=](i64 i) { put(y + i, silu(get(gate + i), get(up + i))); });
}

__device__ __forceinline__ void gradient(float& g, float& u, float d) {
  const float s = __fdividef(1.0f, expf(-g) + 1.0f), ds = d * s, up = u;
  u = ds * g;
  g = ds * up * fmaf(g, 1.0f - s, 1.0f);
}

template <class T> __device__ __forceinline__ void backward(const SiluArgs& a) {
  const T *gate = static_cast<const T*>(a.gate), *up = static_cast<const T*>(a.up), *dy = static_cast<const T*>(a.dy);
  T *dgate = static_cast<T*>(a.first), *dup = static_cast<T*>(a.second);
  sweep(
      a.n, a.wide,
      [=](i64 i) {
        float g[8], u[8], d[8];
        load8(g, gate + i);
        load8(u, up + i);
        load8(d, dy + i);
#pragma unroll
        for (int k = 0; k < 8; ++k) gradient(g[k], u[k], d[k]);
        store8(dgate + i, g);
        store8(dup + i, u);
      },
      [=](i64 i) {
        float g = get(gate + i), u = get(up + i);
        gradient(g, u, get(dy + i));
        put(dgate + i, g);
        put(dup + i, u);
      });
}
LOMO_KERNEL(silu_mul_f32, 256, SiluArgs, forward<float>)  // 48 registers, 0 bytes
LOMO_KERNEL(silu_mul_bf16, 256, SiluArgs, forward<bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(silu_mul_backward_f32, 256, SiluArgs, backward<float>)  // 64 registers, 0 bytes
LOMO_KERNEL(silu_mul_backward_bf16, 256, SiluArgs, backward<bf16>)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::silu_mul

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void forward(const Call& call) {
  const Operand &gate = call.in(0), &up = call.in(1), &y = call.out(0);
  same_size("silu_mul", "up", up.count(), gate.count());
  same_size("silu_mul", "y", y.count(), gate.count());
  const silu_mul::SiluArgs args{gate.data, up.data, nullptr, y.data, nullptr, gate.count(), wide({gate.data, up.data, y.data})};
  start(call, KernelName("silu_mul", gate.dtype), sweep_grid(gate.count()), &args);
}

void backward(const Call& call) {
  const Operand &gate = call.in(0), &up = call.in(1), &dy = call.in(2), &dgate = call.out(0), &dup = call.out(1);
  same_size("silu_mul_backward", "up", up.count(), gate.count());
  same_size("silu_mul_backward", "dy", dy.count(), gate.count());
  same_size("silu_mul_backward", "dgate", dgate.count(), gate.count());
  same_size("silu_mul_backward", "dup", dup.count(), gate.count());
  const silu_mul::SiluArgs args{gate.data, up.data, dy.data, dgate.data, dup.data, gate.count(), wide({gate.data, up.data, dy.data, dgate.data, dup.data})};
  start(call, KernelName("silu_mul_backward", gate.dtype), sweep_grid(gate.count()), &args);
}

}  // namespace

extern const Kernel kernels_silu_mul[] = {
    {"silu_mul", "", accepts<"rr||r">, forward, nullptr},
    {"silu_mul_backward", "", accepts<"rrr||rr">, backward, nullptr},
    {},
};

}  // namespace lomo
#endif
