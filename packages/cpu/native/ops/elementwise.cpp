// add, add_into, mul, scale: one sweep at memory speed.
// Also compiled for avx512_bf16, which rounds to bf16 in one instruction.
#include "dispatch.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {
namespace {

template <class T, class F> void binary(const Call& call, const Operand& a, const Operand& b, const Operand& c, F f) {
  const T* x = a.as<const T>();
  const T* y = b.as<const T>();
  T* z = c.as<T>();
  split(call, c.count(), 64, 3 * sizeof(T), [=](std::int64_t begin, std::int64_t end) {
    sweep(begin, end, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { store(z + i, f(load(x + i, n), load(y + i, n)), n); });
  });
}

void add(const Call& call) {
  same_size("add", "b", call.in(1).count(), call.in(0).count());
  same_size("add", "c", call.out(0).count(), call.in(0).count());
  with_real(call.in(0).dtype, [&](auto* t) {
    binary<pointee<decltype(t)>>(call, call.in(0), call.in(1), call.out(0), [](f32x16 a, f32x16 b) LOMO_ALWAYS { return a + b; });
  });
}

void add_into(const Call& call) {
  same_size("add_into", "b", call.in(0).count(), call.inout(0).count());
  with_real(call.in(0).dtype, [&](auto* t) {
    binary<pointee<decltype(t)>>(call, call.inout(0), call.in(0), call.inout(0), [](f32x16 a, f32x16 b) LOMO_ALWAYS { return a + b; });
  });
}

void mul(const Call& call) {
  same_size("mul", "b", call.in(1).count(), call.in(0).count());
  same_size("mul", "c", call.out(0).count(), call.in(0).count());
  with_real(call.in(0).dtype, [&](auto* t) {
    binary<pointee<decltype(t)>>(call, call.in(0), call.in(1), call.out(0), [](f32x16 a, f32x16 b) LOMO_ALWAYS { return a * b; });
  });
}

void scale(const Call& call) {
  same_size("scale", "c", call.out(0).count(), call.in(0).count());
  const float factor = static_cast<float>(call.attr(0));
  with_real(call.in(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T* x = call.in(0).as<const T>();
    T* z = call.out(0).as<T>();
    split(call, call.in(0).count(), 64, 2 * sizeof(T), [=](std::int64_t begin, std::int64_t end) {
      sweep(begin, end, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { store(z + i, load(x + i, n) * factor, n); });
    });
  });
}

}  // namespace

extern const Kernel kernels_elementwise[];
const Kernel kernels_elementwise[] = {
    {"add", "", accepts<"rr||r">, add, nullptr},
    {"add_into", "", accepts<"r|r|">, add_into, nullptr},
    {"mul", "", accepts<"rr||r">, mul, nullptr},
    {"scale", "factor", accepts<"r||r">, scale, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
