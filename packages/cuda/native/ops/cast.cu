// cast between f32, bf16 and f16 (to nearest even), and fill of any dtype with one number.
#include "gpu/storage.h"

namespace lomo::cast {

struct CastArgs {
  const void* from;
  void* to;
  std::int64_t n;
  bool wide;
};
struct FillArgs {
  void* to;
  std::int64_t words;  // whole words of 4 bytes in the middle
  std::int64_t head, tail;  // bytes before and after them
  std::uint32_t pattern;    // as it lies in memory from a multiple of 4 bytes on
};

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class S, class D> __device__ __forceinline__ void convert(const CastArgs& a) {
  const S* from = static_cast<const S*>(a.from);
  D* to = static_cast<D*>(a.to);
  sweep(
      a.n, a.wide,
      [=](i64 i) {
        float v[8];
        load8(v, from + i);
        store8(to + i, v);
      },
      [=](i64 i) { put(to + i, get(from + i)); });
}

__device__ __forceinline__ void fill(const FillArgs& a) {
  unsigned char* bytes = static_cast<unsigned char*>(a.to);
  u32* words = reinterpret_cast<u32*>(bytes + a.head);
  for (i64 i = sweep_start(); i < a.words; i += sweep_stride()) words[i] = a.pattern;
  if (sweep_start() >= 8) return;
  const i64 i = sweep_start();
  if (i < a.head) bytes[i] = static_cast<unsigned char>(a.pattern >> 8 * ((i + 4 - a.head) % 4));
  if (i < a.tail) bytes[a.head + 4 * a.words + i] = static_cast<unsigned char>(a.pattern >> 8 * i);
}
LOMO_KERNEL(cast_f32_bf16, 256, CastArgs, convert<float, bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(cast_f32_f16, 256, CastArgs, convert<float, f16>)  // 40 registers, 0 bytes
LOMO_KERNEL(cast_bf16_f32, 256, CastArgs, convert<bf16, float>)  // 40 registers, 0 bytes
LOMO_KERNEL(cast_bf16_f16, 256, CastArgs, convert<bf16, f16>)  // 40 registers, 0 bytes
LOMO_KERNEL(cast_f16_f32, 256, CastArgs, convert<f16, float>)  // 40 registers, 0 bytes
LOMO_KERNEL(cast_f16_bf16, 256, CastArgs, convert<f16, bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(fill_bytes, 256, FillArgs, fill)  // 32 registers, 0 bytes
#endif

}  // namespace lomo::cast

#if !defined(LOMO_DEVICE)
#include <bit>

#include "addon/launch.h"

namespace lomo {
namespace {

void cast_kernel(const Call& call) {
  const Operand &a = call.in(0), &c = call.out(0);
  same_size("cast", "c", c.count(), a.count());
  if (a.dtype == c.dtype) return copy_on_device(call, c.data, a.data, a.bytes());
  const cast::CastArgs args{a.data, c.data, a.count(), wide({a.data, c.data})};
  start(call, KernelName("cast", a.dtype, c.dtype), sweep_grid(a.count()), &args);
}

std::uint32_t half_bits(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x), sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
  if (size > 0x7f800000u) return 0x7e00u;
  if (size >= 0x47800000u) return sign | 0x7c00u;
  if (size < 0x38800000u) {
    // 2^-24 apart: adding 0.5 rounds to nearest even in the low bits.
    const float shifted = std::bit_cast<float>(size) + 0.5f;
    return sign | (std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0.5f));
  }
  return sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13;
}

void fill(const Call& call) {
  const Operand& x = call.inout(0);
  const double value = call.attr(0);
  const auto u = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  std::uint32_t pattern = 0;
  switch (x.dtype) {
    case DType::f32: pattern = u; break;
    case DType::bf16: pattern = (static_cast<float>(value) != static_cast<float>(value) ? 0x7fc0u : (u + 0x7fffu + (u >> 16 & 1)) >> 16) * 0x10001u; break;
    case DType::f16: pattern = half_bits(static_cast<float>(value)) * 0x10001u; break;
    case DType::i32: pattern = static_cast<std::uint32_t>(static_cast<std::int32_t>(value)); break;
    case DType::u8: pattern = static_cast<std::uint8_t>(value) * 0x1010101u; break;
  }
  const auto bytes = static_cast<std::int64_t>(x.bytes());
  const auto head = std::min<std::int64_t>(bytes, static_cast<std::int64_t>((4 - reinterpret_cast<std::uintptr_t>(x.data) % 4) % 4));
  const std::int64_t words = (bytes - head) / 4;
  const cast::FillArgs args{x.data, words, head, bytes - head - 4 * words, pattern};
  if (bytes > 0) start(call, "fill_bytes", {std::min<std::int64_t>(ceil_div(words + 1, 1024), 2048)}, &args);
}

}  // namespace

extern const Kernel kernels_cast[] = {
    {"cast", "", accepts<"s||s">, cast_kernel, nullptr},
    {"fill", "value", accepts<"|x|">, fill, nullptr},
    {},
};

}  // namespace lomo
#endif
