// update_sums: the rows' sums of an update made by somebody else. update_total: the rows one after the other, in double, into a group's sums.
#include "gpu/update.h"

namespace lomo::update_sums {

struct SumsArgs {
  const void *before, *p;
  const float *g, *scalars;
  float* sums;
  std::int64_t rows, columns;
};
struct TotalArgs {
  const float* sums;
  float* total;
  std::int64_t rows;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class T> __device__ __forceinline__ void rows(const SumsArgs& a) {
  const T *before = static_cast<const T*>(a.before), *p = static_cast<const T*>(a.p);
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    float changed = 0, applied = 0, weight = 0, gradient = 0;
    for (i64 j = threadIdx.x; j < a.columns; j += blockDim.x) {
      const i64 i = row * a.columns + j;
      const float was = get(before + i), is = get(p + i), g = a.g[i];
      changed += __float_as_uint(was) == __float_as_uint(is) ? 0.0f : 1.0f;
      applied += (is - was) * (is - was);
      weight += was * was;
      gradient += g * g;
    }
    changed = block_sum(changed);
    applied = block_sum(applied);
    weight = block_sum(weight);
    gradient = block_sum(gradient);
    const float scale = a.scalars[at_loss_scale];
    // Columns 1 to 4 need what was intended.
    if (threadIdx.x < 8) {
      const unsigned c = threadIdx.x;
      a.sums[row * 8 + c] = c == 0 ? changed : c == 5 ? applied : c == 6 ? weight : c == 7 ? gradient / scale / scale : 0.0f;
    }
  }
}

// One block; thread c adds column c, row after row, from tiles that all threads bring.
__device__ __forceinline__ void total(const TotalArgs& a) {
  LOMO_SHARED(float, tile, 512);
  const unsigned t = threadIdx.x;
  double sum = t < 8 ? static_cast<double>(a.total[2 * t]) + static_cast<double>(a.total[2 * t + 1]) : 0.0;
  for (i64 first = 0; first < a.rows; first += 64) {
    const i64 left = 8 * (a.rows - first);
    for (unsigned i = t; i < 512; i += blockDim.x)
      if (i < left) tile[i] = a.sums[8 * first + i];
    __syncthreads();
    if (t < 8)
      for (unsigned r = 0; r < 64 && 8 * r < left; ++r) sum += static_cast<double>(tile[8 * r + t]);
    __syncthreads();
  }
  if (t >= 8) return;
  const float high = static_cast<float>(sum);
  a.total[2 * t] = high;
  a.total[2 * t + 1] = static_cast<float>(sum - static_cast<double>(high));
}
LOMO_KERNEL(update_sums_f32, 256, SumsArgs, rows<float>)  // 40 registers, 128 bytes
LOMO_KERNEL(update_sums_bf16, 256, SumsArgs, rows<bf16>)  // 40 registers, 128 bytes
LOMO_KERNEL(update_sums_f16, 256, SumsArgs, rows<f16>)  // 40 registers, 128 bytes
LOMO_KERNEL(update_total_f32, 256, TotalArgs, total)  // 40 registers, 2,048 bytes
#endif

}  // namespace lomo::update_sums

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void rows(const Call& call) {
  const std::int64_t columns = call.in(0).last(), n = call.in(0).rows();
  same_size("update_sums", "p", call.in(1).count(), n * columns);
  same_size("update_sums", "g", call.in(2).count(), n * columns);
  same_size("update_sums", "sums", call.out(0).count(), n * 8);
  const update_sums::SumsArgs args{call.in(0).data, call.in(1).data, call.in(2).as<const float>(), call.in(3).as<const float>(), call.out(0).as<float>(), n, columns};
  start(call, KernelName("update_sums", call.in(0).dtype), row_grid(n), &args);
}

void total(const Call& call) {
  const std::int64_t n = call.in(0).count() / 8;
  same_size("update_total", "sums", call.in(0).count(), n * 8);
  same_size("update_total", "total", call.inout(0).count(), 16);
  const update_sums::TotalArgs args{call.in(0).as<const float>(), call.inout(0).as<float>(), n};
  start(call, "update_total_f32", {1}, &args);
}

}  // namespace

extern const Kernel kernels_update_sums[] = {
    {"update_sums", "", accepts<"ppff||f">, rows, nullptr},
    {"update_total", "", accepts<"f|f|">, total, nullptr},
    {},
};

}  // namespace lomo
#endif
