// add, add_into, mul, scale: one sweep at memory speed, eight elements a thread.
#include "gpu/storage.h"

namespace lomo::elementwise {

struct BinaryArgs {
  const void *a, *b;
  void* c;
  std::int64_t n;
  float factor;
  bool wide;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class T, class F> __device__ __forceinline__ void binary(const BinaryArgs& args, F f) {
  const T *a = static_cast<const T*>(args.a), *b = static_cast<const T*>(args.b);
  T* c = static_cast<T*>(args.c);
  sweep(
      args.n, args.wide,
      [=](i64 i) {
        float x[8], y[8];
        load8(x, a + i);
        load8(y, b + i);
#pragma unroll
        for (int k = 0; k < 8; ++k) x[k] = f(x[k], y[k]);
        store8(c + i, x);
      },
      [=](i64 i) { put(c + i, f(get(a + i), get(b + i))); });
}
template <class T> __device__ __forceinline__ void add(const BinaryArgs& args) { binary<T>(args, [](float x, float y) { return x + y; }); }
template <class T> __device__ __forceinline__ void mul(const BinaryArgs& args) { binary<T>(args, [](float x, float y) { return x * y; }); }
template <class T> __device__ __forceinline__ void scale(const BinaryArgs& args) {
  const T* a = static_cast<const T*>(args.a);
  T* c = static_cast<T*>(args.c);
  const float factor = args.factor;
  sweep(
      args.n, args.wide,
      [=](i64 i) {
        float x[8];
        load8(x, a + i);
#pragma unroll
        for (int k = 0; k < 8; ++k) x[k] *= factor;
        store8(c + i, x);
      },
      [=](i64 i) { put(c + i, get(a + i) * factor); });
}
LOMO_KERNEL(add_f32, 256, BinaryArgs, add<float>)  // 48 registers, 0 bytes
LOMO_KERNEL(add_bf16, 256, BinaryArgs, add<bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(mul_f32, 256, BinaryArgs, mul<float>)  // 48 registers, 0 bytes
LOMO_KERNEL(mul_bf16, 256, BinaryArgs, mul<bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(scale_f32, 256, BinaryArgs, scale<float>)  // 48 registers, 0 bytes
LOMO_KERNEL(scale_bf16, 256, BinaryArgs, scale<bf16>)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::elementwise

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void binary(const Call& call, const char* name, const Operand& a, const Operand& b, const Operand& c) {
  const std::int64_t n = c.count();
  same_size(name, "a", a.count(), n);
  same_size(name, "b", b.count(), n);
  const elementwise::BinaryArgs args{a.data, b.data, c.data, n, call.attributes == nullptr ? 0.0f : static_cast<float>(call.attr(0)), wide({a.data, b.data, c.data})};
  start(call, KernelName(name, c.dtype), sweep_grid(n), &args);
}
void add(const Call& call) { binary(call, "add", call.in(0), call.in(1), call.out(0)); }
void add_into(const Call& call) { binary(call, "add", call.inout(0), call.in(0), call.inout(0)); }
void mul(const Call& call) { binary(call, "mul", call.in(0), call.in(1), call.out(0)); }
void scale(const Call& call) { binary(call, "scale", call.in(0), call.in(0), call.out(0)); }

}  // namespace

extern const Kernel kernels_elementwise[] = {
    {"add", "", accepts<"rr||r">, add, nullptr},
    {"add_into", "", accepts<"r|r|">, add_into, nullptr},
    {"mul", "", accepts<"rr||r">, mul, nullptr},
    {"scale", "factor", accepts<"r||r">, scale, nullptr},
    {},
};

}  // namespace lomo
#endif
