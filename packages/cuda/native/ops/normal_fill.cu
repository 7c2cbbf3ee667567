// normal_fill: normal numbers by Box-Muller from counter-based random words, in double; element i depends on (seed, key, i) alone.
#include "gpu/philox.h"

namespace lomo::normal_fill {

struct NormalArgs {
  void* x;
  std::int64_t n;
  double mean, deviation;
  std::uint32_t key0, key1;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class T> __device__ __forceinline__ void fill(const NormalArgs& a) {
  T* x = static_cast<T*>(a.x);
  for (i64 i = sweep_start(); i < a.n; i += sweep_stride()) {
    const Words words = philox(a.key0, a.key1, static_cast<u64>(i), 0, 1);
    const double u0 = (static_cast<double>(words.w[0]) + 0.5) * 0x1p-32, u1 = (static_cast<double>(words.w[1]) + 0.5) * 0x1p-32;
    put(x + i, static_cast<float>(a.mean + a.deviation * sqrt(-2.0 * log(u0)) * cospi(2.0 * u1)));
  }
}
LOMO_KERNEL(normal_fill_f32, 256, NormalArgs, fill<float>)  // 40 registers, 0 bytes
LOMO_KERNEL(normal_fill_bf16, 256, NormalArgs, fill<bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(normal_fill_f16, 256, NormalArgs, fill<f16>)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::normal_fill

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void fill(const Call& call) {
  const Operand& x = call.inout(0);
  const auto seed = static_cast<std::uint64_t>(call.attr(1));
  const normal_fill::NormalArgs args{x.data, x.count(), call.attr(2), call.attr(3), static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>(call.integer(0))};
  start(call, KernelName("normal_fill", x.dtype), sweep_grid(x.count(), 1), &args);
}

}  // namespace

extern const Kernel kernels_normal_fill[] = {
    {"normal_fill", "key seed mean std", accepts<"|p|">, fill, nullptr},
    {},
};

}  // namespace lomo
#endif
