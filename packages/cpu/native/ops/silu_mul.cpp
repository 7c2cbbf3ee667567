// silu_mul: y = gate sigmoid(gate) up, and its gradient; the sigmoid is computed again rather than kept.
// Also compiled for avx512_bf16, which rounds to bf16 in one instruction.
#include "dispatch.h"
#include "../simd/math.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {
namespace {

void silu_mul(const Call& call) {
  const std::int64_t count = call.in(0).count();
  same_size("silu_mul", "up", call.in(1).count(), count);
  same_size("silu_mul", "y", call.out(0).count(), count);
  with_real(call.in(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T* gate = call.in(0).as<const T>();
    const T* up = call.in(1).as<const T>();
    T* y = call.out(0).as<T>();
    split(call, count, 64, 3 * sizeof(T), [=](std::int64_t begin, std::int64_t end) {
      sweep(begin, end, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
        const f32x16 g = load(gate + i, n);
        store(y + i, g / (exp(-g) + 1.0f) * load(up + i, n), n);
      });
    });
  });
}

void silu_mul_backward(const Call& call) {
  const std::int64_t count = call.in(0).count();
  same_size("silu_mul_backward", "up", call.in(1).count(), count);
  same_size("silu_mul_backward", "dy", call.in(2).count(), count);
  same_size("silu_mul_backward", "dgate", call.out(0).count(), count);
  same_size("silu_mul_backward", "dup", call.out(1).count(), count);
  with_real(call.in(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T* gate = call.in(0).as<const T>();
    const T* up = call.in(1).as<const T>();
    const T* dy = call.in(2).as<const T>();
    T* dgate = call.out(0).as<T>();
    T* dup = call.out(1).as<T>();
    split(call, count, 64, 5 * sizeof(T), [=](std::int64_t begin, std::int64_t end) {
      sweep(begin, end, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
        const f32x16 g = load(gate + i, n), u = load(up + i, n), d = load(dy + i, n);
        const f32x16 s = sigmoid(g);
        const f32x16 ds = d * s;
        store(dgate + i, ds * u * fma(g, 1.0f - s, f32x16(1.0f)), n);
        store(dup + i, ds * g, n);
      });
    });
  });
}

}  // namespace

extern const Kernel kernels_silu_mul[];
const Kernel kernels_silu_mul[] = {
    {"silu_mul", "", accepts<"rr||r">, silu_mul, nullptr},
    {"silu_mul_backward", "", accepts<"rrr||rr">, silu_mul_backward, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
