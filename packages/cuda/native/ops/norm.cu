// sum_squares, norm_add, clip_coefficient: the global norm in double, in one order; and mean, AdaLomo's average of row statistics.
#include "gpu/step.h"

namespace lomo::norm {

struct SquaresArgs {
  const float* g;
  float* s;
  std::int64_t rows, columns;
  bool wide;
};
struct AddArgs {
  const float* s;
  float* total;  // high and low of a double; or the mean
  std::int64_t n;
};
struct ClipArgs {
  const float* total;
  float* scalars;
  int* counters;
  double max_norm;
  int index;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

__device__ __forceinline__ void squares(const SquaresArgs& a) {
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const float* g = a.g + row * a.columns;
    double sum = 0;
    const i64 groups = a.wide ? a.columns / 8 : 0;
    for (i64 k = threadIdx.x; k < groups; k += blockDim.x) {
      float v[8];
      load8(v, g + 8 * k);
#pragma unroll
      for (int e = 0; e < 8; ++e) sum += static_cast<double>(v[e]) * static_cast<double>(v[e]);
    }
    for (i64 j = 8 * groups + threadIdx.x; j < a.columns; j += blockDim.x) sum += static_cast<double>(g[j]) * static_cast<double>(g[j]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) a.s[row] = static_cast<float>(sum);
  }
}

// One block: everybody brings a tile, one thread adds it, ascending.
__device__ __forceinline__ double ascending(double sum, const float* s, i64 n) {
  LOMO_SHARED(float, tile, 256);
  for (i64 first = 0; first < n; first += 256) {
    if (first + threadIdx.x < n) tile[threadIdx.x] = s[first + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0)
      for (unsigned i = 0; i < 256 && first + i < n; ++i) sum += static_cast<double>(tile[i]);
    __syncthreads();
  }
  return sum;
}
__device__ __forceinline__ void add(const AddArgs& a) {
  const double sum = ascending(static_cast<double>(a.total[0]) + static_cast<double>(a.total[1]), a.s, a.n);
  if (threadIdx.x != 0) return;
  const float high = static_cast<float>(sum);
  a.total[0] = high;
  a.total[1] = static_cast<float>(sum - static_cast<double>(high));
}
__device__ __forceinline__ void mean(const AddArgs& a) {
  const double sum = ascending(0.0, a.s, a.n);
  if (threadIdx.x == 0) a.total[0] = static_cast<float>(sum / static_cast<double>(a.n));
}
__device__ __forceinline__ void clip(const ClipArgs& a) {
  const double sum = static_cast<double>(a.total[0]) + static_cast<double>(a.total[1]);
  if (!(sum - sum == 0.0)) return close_gate(a.counters, a.index);
  const double norm = sqrt(sum) / static_cast<double>(a.scalars[at_loss_scale]), coefficient = a.max_norm / (norm + 1e-6);
  a.scalars[at_clip] = static_cast<float>(coefficient < 1.0 ? coefficient : 1.0);
}
LOMO_KERNEL(sum_squares_f32, 256, SquaresArgs, squares)  // 40 registers, 256 bytes
LOMO_KERNEL(norm_add_f32, 256, AddArgs, add)  // 24 registers, 1,024 bytes
LOMO_KERNEL(mean_f32, 256, AddArgs, mean)  // 24 registers, 1,024 bytes
LOMO_KERNEL(clip_coefficient_f32, 32, ClipArgs, clip)  // 24 registers, 0 bytes
#endif

}  // namespace lomo::norm

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void squares(const Call& call) {
  const Operand& g = call.in(0);
  const std::int64_t columns = g.last(), rows = call.out(0).count();
  same_size("sum_squares", "g", g.count(), rows * columns);
  const norm::SquaresArgs args{g.as<const float>(), call.out(0).as<float>(), rows, columns, columns % 4 == 0 && wide({g.data})};
  start(call, "sum_squares_f32", row_grid(rows, columns), &args);
}
void add(const Call& call) {
  same_size("norm_add", "total", call.inout(0).count(), 2);
  const norm::AddArgs args{call.in(0).as<const float>(), call.inout(0).as<float>(), call.in(0).count()};
  start(call, "norm_add_f32", {1}, &args);
}
void mean(const Call& call) {
  const norm::AddArgs args{call.in(0).as<const float>(), call.out(0).as<float>(), call.in(0).count()};
  start(call, "mean_f32", {1}, &args);
}
void clip(const Call& call) {
  same_size("clip_coefficient", "total", call.in(0).count(), 2);
  const norm::ClipArgs args{call.in(0).as<const float>(), call.inout(0).as<float>(), call.inout(1).as<int>(), call.attr(0), static_cast<int>(call.integer(1))};
  start(call, "clip_coefficient_f32", {1, 1, 1}, &args);
}

}  // namespace

extern const Kernel kernels_norm[] = {
    {"sum_squares", "", accepts<"f||f">, squares, nullptr},
    {"norm_add", "", accepts<"f|f|">, add, nullptr},
    {"clip_coefficient", "max_norm index", accepts<"f|fi|">, clip, nullptr},
    {"mean", "", accepts<"f||f">, mean, nullptr},
    {},
};

}  // namespace lomo
#endif
