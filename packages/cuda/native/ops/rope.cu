// rope: rotates pairs (j, j + r) of every head by position times inverse frequency; the gradient is the same op with `inverse`. A block a
// token: its angles are computed once, reduced in double, and serve all heads.
#include "gpu/storage.h"

namespace lomo::rope {

constexpr int angles = 256;  // pairs whose angles a block holds at a time

struct RopeArgs {
  const void* x;
  const int* positions;
  const float* frequency;
  void* y;
  std::int64_t tokens, heads, d, r;
  double direction;
  float scale;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

// sin and cos of an angle in radians: quarter turns taken off in double, series that are exact in f32 on what is left.
__device__ __forceinline__ void turn(double angle, float& sine, float& cosine) {
  const double n = rint(angle * 0.63661977236758134308);
  const double left = (angle - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
  const float r = static_cast<float>(left), z = r * r;
  float s = 1.0f / 362880;
  s = fmaf(s, z, -1.0f / 5040);
  s = fmaf(s, z, 1.0f / 120);
  s = fmaf(s, z, -1.0f / 6);
  s = fmaf(s * z, r, r);
  float c = -1.0f / 3628800;
  c = fmaf(c, z, 1.0f / 40320);
  c = fmaf(c, z, -1.0f / 720);
  c = fmaf(c, z, 1.0f / 24);
  c = fmaf(c * z, z, fmaf(z, -0.5f, 1.0f));
  const int quarter = static_cast<int>(static_cast<long long>(n) & 3);
  const float a = quarter % 2 != 0 ? c : s, b = quarter % 2 != 0 ? s : c;
  sine = (quarter & 2) != 0 ? -a : a;
  cosine = ((quarter + 1) & 2) != 0 ? -b : b;
}

template <class T> __device__ __forceinline__ void rotate(const RopeArgs& a) {
  LOMO_SHARED(float2, table, angles);
  const T* x = static_cast<const T*>(a.x);
  T* y = static_cast<T*>(a.y);
  for (i64 t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const double position = a.direction * a.positions[t];
    for (i64 first = 0; first < a.r; first += angles) {
      const int count = static_cast<int>(a.r - first < angles ? a.r - first : angles);
      if (static_cast<int>(threadIdx.x) < count) {
        float s, c;
        turn(static_cast<double>(a.frequency[first + threadIdx.x]) * position, s, c);
        table[threadIdx.x] = float2{c * a.scale, s * a.scale};
      }
      __syncthreads();
      for (i64 i = threadIdx.x; i < a.heads * count; i += blockDim.x) {
        const i64 head = i / count, j = i % count, at = (t * a.heads + head) * a.d + first + j;
        const float p = get(x + at), q = get(x + at + a.r);
        const float2 cs = table[j];
        put(y + at, p * cs.x - q * cs.y);
        put(y + at + a.r, q * cs.x + p * cs.y);
      }
      __syncthreads();
    }
    const i64 rest = a.d - 2 * a.r;
    for (i64 i = threadIdx.x; i < a.heads * rest; i += blockDim.x) {
      const i64 at = (t * a.heads + i / rest) * a.d + 2 * a.r + i % rest;
      y[at] = x[at];
    }
  }
}
LOMO_KERNEL(rope_f32, 256, RopeArgs, rotate<float>)  // 40 registers, 2,048 bytes
LOMO_KERNEL(rope_bf16, 256, RopeArgs, rotate<bf16>)  // 40 registers, 2,048 bytes
#endif

}  // namespace lomo::rope

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void rotate(const Call& call) {
  const Operand& x = call.in(0);
  if (x.rank != 3) throw Error("BadShape", "rope: x has rank " + std::to_string(x.rank) + ", wants [T, H, d]");
  const std::int64_t tokens = x.dim[0], heads = x.dim[1], d = x.dim[2], r = call.in(2).count();
  same_size("rope", "positions", call.in(1).count(), tokens);
  same_size("rope", "y", call.out(0).count(), x.count());
  if (2 * r > d) throw Error("BadShape", "rope: " + std::to_string(r) + " frequencies rotate " + std::to_string(2 * r) + " elements, a head has " + std::to_string(d));
  const rope::RopeArgs args{x.data, call.in(1).as<const int>(), call.in(2).as<const float>(), call.out(0).data, tokens, heads, d, r, call.flag(1) ? -1.0 : 1.0, static_cast<float>(call.attr(0))};
  start(call, KernelName("rope", x.dtype), row_grid(heads * d == 0 ? 0 : tokens), &args);
}

}  // namespace

extern const Kernel kernels_rope[] = {
    {"rope", "scale inverse", accepts<"rif||r">, rotate, nullptr},
    {},
};

}  // namespace lomo
#endif
