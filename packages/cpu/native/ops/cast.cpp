// cast between f32, bf16 and f16 (to nearest even), and fill of any dtype with one number.
#include "dispatch.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {
namespace {

void cast(const Call& call) {
  const Operand &a = call.in(0), &c = call.out(0);
  same_size("cast", "c", c.count(), a.count());
  with_storage(a.dtype, [&](auto* s) {
    with_storage(c.dtype, [&](auto* d) {
      using S = pointee<decltype(s)>;
      using D = pointee<decltype(d)>;
      const S* x = a.as<const S>();
      D* y = c.as<D>();
      split(call, a.count(), 64, sizeof(S) + sizeof(D), [=](std::int64_t begin, std::int64_t end) {
        if constexpr (std::is_same_v<S, D>) std::memcpy(y + begin, x + begin, static_cast<std::size_t>(end - begin) * sizeof(S));
        else sweep(begin, end, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { store(y + i, load(x + i, n), n); });
      });
    });
  });
}

void fill(const Call& call) {
  const Operand& x = call.inout(0);
  const double value = call.attr(0);
  if (x.dtype == DType::u8) {
    std::uint8_t* p = x.as<std::uint8_t>();
    split(call, x.count(), 64, 1, [=](std::int64_t begin, std::int64_t end) {
      std::memset(p + begin, static_cast<int>(value), static_cast<std::size_t>(end - begin));
    });
  } else if (x.dtype == DType::i32) {
    std::int32_t* p = x.as<std::int32_t>();
    const i32x16 v(static_cast<std::int32_t>(value));
    split(call, x.count(), 64, 4, [=](std::int64_t begin, std::int64_t end) {
      sweep(begin, end, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { store(p + i, v, n); });
    });
  } else {
    with_storage(x.dtype, [&](auto* t) {
      using T = pointee<decltype(t)>;
      T* p = x.as<T>();
      const f32x16 v(static_cast<float>(value));
      split(call, x.count(), 64, sizeof(T), [=](std::int64_t begin, std::int64_t end) {
        sweep(begin, end, [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { store(p + i, v, n); });
      });
    });
  }
}

}  // namespace

extern const Kernel kernels_cast[];
const Kernel kernels_cast[] = {
    {"cast", "", accepts<"s||s">, cast, nullptr},
    {"fill", "value", accepts<"|x|">, fill, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
