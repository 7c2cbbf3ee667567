// rope: rotates pairs (j, j + r) of every head by position times inverse frequency; the gradient is the same op with `inverse`.
// Also compiled for avx512_bf16, which rounds to bf16 in one instruction.
#include "dispatch.h"
#include "../simd/math.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {
namespace {

void rope(const Call& call) {
  const Operand& x = call.in(0);
  LOMO_REQUIRE(x.rank == 3, "BadShape", "rope: x has rank %d, wants [T, H, d]", x.rank);
  const std::int64_t tokens = x.dim[0], heads = x.dim[1], d = x.dim[2], r = call.in(2).count();
  same_size("rope", "positions", call.in(1).count(), tokens);
  same_size("rope", "y", call.out(0).count(), x.count());
  LOMO_REQUIRE(2 * r <= d, "BadShape", "rope: %lld frequencies rotate %lld elements, a head has %lld", static_cast<long long>(r), static_cast<long long>(2 * r), static_cast<long long>(d));
  const std::int32_t* positions = call.in(1).as<const std::int32_t>();
  const float* frequency = call.in(2).as<const float>();
  const float scale = static_cast<float>(call.attr(0));
  const double direction = call.flag(1) ? -1.0 : 1.0;
  with_real(x.dtype, [&](auto* type) {
    using T = pointee<decltype(type)>;
    const T* in = x.as<const T>();
    T* out = call.out(0).as<T>();
    split(call, tokens, 1, heads * d * static_cast<std::int64_t>(2 * sizeof(T)), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const double position = direction * positions[t];
        // Angles of sixteen pairs serve all heads of the token.
        sweep(0, r, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
          const sincos16 a = sincos(to_f64(load(frequency + j, n)) * position);
          const f32x16 c = a.cos * scale, s = a.sin * scale;
          for (std::int64_t h = 0; h < heads; ++h) {
            const std::int64_t at = (t * heads + h) * d + j;
            const f32x16 p = load(in + at, n), q = load(in + at + r, n);
            store(out + at, p * c - q * s, n);
            store(out + at + r, q * c + p * s, n);
          }
        });
        if (2 * r < d) {
          for (std::int64_t h = 0; h < heads; ++h) {
            const std::int64_t at = (t * heads + h) * d + 2 * r;
            std::memmove(out + at, in + at, static_cast<std::size_t>(d - 2 * r) * sizeof(T));
          }
        }
      }
    });
  });
}

}  // namespace

extern const Kernel kernels_rope[];
const Kernel kernels_rope[] = {
    {"rope", "scale inverse", accepts<"rif||r">, rope, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
