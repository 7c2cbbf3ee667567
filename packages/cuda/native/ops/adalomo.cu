// AdaLomo: factored second moments of a matrix, the plain one of a vector, the sums that its step needs, and the step.
#include "gpu/token_sum.h"
#include "gpu/update.h"

namespace lomo::adalomo {

struct MomentArgs {
  const float *g, *scalars;
  float* r;
  const int* counters;
  gpu::TokenSum sum;  // n columns, rows
  double decay_rate, inverse_columns;
  float eps, clip_value;
};
struct ColumnArgs {
  const float* sums;
  const int* counters;
  float* c;
  std::int64_t n;
  double inverse_rows, decay_rate;
};
struct VectorArgs {
  const float *g, *scalars;
  float* v;
  const int* counters;
  std::int64_t n;
  double decay_rate;
  float eps, clip_value;
};
// r and c of a matrix, or v of a vector: c is null then, and r holds v.
struct DirectionArgs {
  const float *g, *r, *c, *mean, *scalars;
  std::int64_t columns;
  float clip_value;
};
struct RatioArgs {
  DirectionArgs direction;
  const void* p;
  float *u2, *p2;
  std::int64_t rows;
};
struct StepArgs {
  const float *u2, *p2, *scalars;
  float* step;  // keep, size
  std::int64_t n;
  double inverse_count, eps2, limit, weight_decay;
};
struct WriteArgs {
  gpu::UpdateArgs update;
  DirectionArgs direction;
  const float* step;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

__device__ __forceinline__ double decay(const int* counters, double rate) { return 1.0 - exp(rate * log(static_cast<double>(counters[at_step]))); }

__device__ __forceinline__ void rows(const MomentArgs& a) {
  if (!gate_open(a.counters)) return;
  const Gradient gradient(a.scalars, a.clip_value);
  for (i64 row = blockIdx.x; row < a.sum.rows; row += gridDim.x) {
    float q = 0;
    for (i64 j = threadIdx.x; j < a.sum.n; j += blockDim.x) {
      const float x = gradient(a.g[row * a.sum.n + j]);
      q += x * x + a.eps;
    }
    q = block_sum(q);
    if (threadIdx.x != 0) continue;
    const double b2 = decay(a.counters, a.decay_rate);
    a.r[row] = static_cast<float>(b2 * static_cast<double>(a.r[row]) + (1.0 - b2) * static_cast<double>(q) * a.inverse_columns);
  }
}
__device__ __forceinline__ void column_sums(const MomentArgs& a) {
  if (!gate_open(a.counters)) return;
  const Gradient gradient(a.scalars, a.clip_value);
  sum_chunk(a.sum, [&](i64 row, i64 column) {
    const float x = gradient(a.g[row * a.sum.n + column]);
    return x * x + a.eps;
  });
}
__device__ __forceinline__ void close(const MomentArgs& a) {
  if (gate_open(a.counters)) close_chunks(a.sum);
}

__device__ __forceinline__ void columns(const ColumnArgs& a) {
  LOMO_SHARED(double, shared, 1);
  if (threadIdx.x == 0) shared[0] = decay(a.counters, a.decay_rate);
  __syncthreads();
  if (!gate_open(a.counters)) return;
  const double b2 = shared[0], rest = (1.0 - b2) * a.inverse_rows;
  for (i64 j = sweep_start(); j < a.n; j += sweep_stride())
    a.c[j] = static_cast<float>(b2 * static_cast<double>(a.c[j]) + rest * (static_cast<double>(a.sums[j]) + static_cast<double>(a.sums[a.n + j])));
}

__device__ __forceinline__ void vector(const VectorArgs& a) {
  LOMO_SHARED(double, shared, 1);
  if (threadIdx.x == 0) shared[0] = decay(a.counters, a.decay_rate);
  __syncthreads();
  if (!gate_open(a.counters)) return;
  const Gradient gradient(a.scalars, a.clip_value);
  const float keep = static_cast<float>(shared[0]), rest = static_cast<float>(1.0 - shared[0]);
  for (i64 i = sweep_start(); i < a.n; i += sweep_stride()) {
    const float x = gradient(a.g[i]);
    a.v[i] = a.v[i] * keep + (x * x + a.eps) * rest;
  }
}

// The update's direction: one formula for the ratio's sums and for the step, so that both see the same numbers.
struct Direction {
  const DirectionArgs& a;
  Gradient gradient;
  __device__ __forceinline__ explicit Direction(const DirectionArgs& args) : a(args), gradient(args.scalars, args.clip_value) {}
  // g is scaled and clipped.
  __device__ __forceinline__ float at(i64 row, i64 column, float g) const {
    if (a.c == nullptr) return g * rsqrtf(a.r[column]);
    return g * rsqrtf(__fdividef(a.r[row], a.mean[0])) * rsqrtf(a.c[column]);
  }
  __device__ __forceinline__ float operator()(i64 i, float g) const {
    if (a.c == nullptr) return at(0, i, g);
    const i64 row = (i | a.columns) >> 32 == 0 ? static_cast<i64>(static_cast<u32>(i) / static_cast<u32>(a.columns)) : i / a.columns;
    return at(row, i - row * a.columns, g);
  }
};

template <class T> __device__ __forceinline__ void ratio(const RatioArgs& a) {
  const Direction direction(a.direction);
  const T* p = static_cast<const T*>(a.p);
  const i64 n = a.direction.columns;
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    double u2 = 0, p2 = 0;
    for (i64 j = threadIdx.x; j < n; j += blockDim.x) {
      const double u = direction.at(row, j, direction.gradient(a.direction.g[row * n + j]));
      u2 += u * u;
    }
    // A loop of its own: the division above has a slow path, which would spill what lives across it.
    for (i64 j = threadIdx.x; j < n; j += blockDim.x) {
      const double x = get(p + row * n + j);
      p2 += x * x;
    }
    u2 = block_sum(u2);
    p2 = block_sum(p2);
    if (threadIdx.x == 0) a.u2[row] = static_cast<float>(u2), a.p2[row] = static_cast<float>(p2);
  }
}

// One block: the relative step size and the cap on the update's root mean square.
__device__ __forceinline__ void step(const StepArgs& a) {
  double u2 = 0, p2 = 0;
  for (i64 i = threadIdx.x; i < a.n; i += blockDim.x) u2 += static_cast<double>(a.u2[i]), p2 += static_cast<double>(a.p2[i]);
  u2 = block_sum(u2);
  p2 = block_sum(p2);
  if (threadIdx.x != 0) return;
  const double size = sqrt(p2 * a.inverse_count), over = sqrt(u2 * a.inverse_count) / a.limit;
  const double eta = static_cast<double>(a.scalars[at_lr]) * (size > a.eps2 ? size : a.eps2);
  a.step[0] = static_cast<float>(1.0 - eta * a.weight_decay);
  a.step[1] = static_cast<float>(eta / (over > 1.0 ? over : 1.0));
}

struct Next {
  Direction direction;
  float keep, size;
  __device__ __forceinline__ explicit Next(const WriteArgs& a) : direction(a.direction), keep(a.step[0]), size(a.step[1]) {}
  __device__ __forceinline__ float operator()(i64 i, float p, float g) const { return p * keep - direction(i, g) * size; }
};
template <class T> __device__ __forceinline__ void write(const WriteArgs& a) { write_update<T>(a.update, Next(a)); }
__device__ __forceinline__ void overflow(const WriteArgs& a) { close_on_overflow(a.update, Next(a)); }

LOMO_KERNEL(adalomo_rows, 256, MomentArgs, rows)  // 40 registers, 128 bytes
LOMO_KERNEL(adalomo_column_sums, 256, MomentArgs, column_sums)  // 40 registers, 0 bytes
LOMO_KERNEL(adalomo_close, 256, MomentArgs, close)  // 40 registers, 0 bytes
LOMO_KERNEL(adalomo_columns, 256, ColumnArgs, columns)  // 32 registers, 8 bytes
LOMO_KERNEL(adalomo_vector, 256, VectorArgs, vector)  // 32 registers, 8 bytes
LOMO_KERNEL(adalomo_ratio_f32, 256, RatioArgs, ratio<float>)  // 40 registers, 256 bytes
LOMO_KERNEL(adalomo_ratio_bf16, 256, RatioArgs, ratio<bf16>)  // 40 registers, 256 bytes
LOMO_KERNEL(adalomo_ratio_f16, 256, RatioArgs, ratio<f16>)  // 40 registers, 256 bytes
LOMO_KERNEL(adalomo_step, 256, StepArgs, step)  // 40 registers, 256 bytes
LOMO_KERNEL(adalomo_update_f32, 256, WriteArgs, write<float>)  // 40 registers, 128 bytes
LOMO_KERNEL(adalomo_update_bf16, 256, WriteArgs, write<bf16>)  // 40 registers, 128 bytes
LOMO_KERNEL(adalomo_update_f16, 256, WriteArgs, write<f16>)  // 40 registers, 128 bytes
LOMO_KERNEL(adalomo_update_overflow, 256, WriteArgs, overflow)  // 48 registers, 0 bytes
#endif

}  // namespace lomo::adalomo

#if !defined(LOMO_DEVICE)
#include "addon/step.h"

namespace lomo {
namespace {

void moments(const Call& call) {
  const Operand& g = call.in(0);
  const std::int64_t columns = g.last(), rows = g.rows(), first = call.integer(0);
  same_size("adalomo_moments", "r", call.inout(0).count(), rows);
  same_size("adalomo_moments", "sums", call.inout(1).count(), 2 * columns);
  if (call.flag(5)) check_gate(call, g, call.inout(2), call.integer(4));
  if (rows == 0 || columns == 0) return;
  const adalomo::MomentArgs args{g.as<const float>(), call.in(1).as<const float>(), call.inout(0).as<float>(), call.inout(2).as<const int>(),
                                 {call.inout(1).as<float>(), static_cast<float*>(call.workspace), columns, rows, first}, call.attr(1), 1.0 / static_cast<double>(columns), static_cast<float>(call.attr(2)), static_cast<float>(call.attr(3))};
  start(call, "adalomo_rows", row_grid(rows), &args);
  start(call, "adalomo_column_sums", {ceil_div(columns, 256), gpu::token_chunks(first, rows)}, &args);
  start(call, "adalomo_close", {ceil_div(columns, 256)}, &args);
}
std::size_t moments_workspace(const Call& call) { return static_cast<std::size_t>(gpu::token_chunks(call.integer(0), call.in(0).rows()) * call.in(0).last()) * sizeof(float); }

void columns(const Call& call) {
  const std::int64_t n = call.inout(0).count();
  same_size("adalomo_columns", "sums", call.in(0).count(), 2 * n);
  const adalomo::ColumnArgs args{call.in(0).as<const float>(), call.in(2).as<const int>(), call.inout(0).as<float>(), n, 1.0 / call.attr(0), call.attr(1)};
  start(call, "adalomo_columns", sweep_grid(n, 1), &args);
}

void vector(const Call& call) {
  const std::int64_t n = call.in(0).count();
  same_size("adalomo_vector", "v", call.inout(0).count(), n);
  if (call.flag(4)) check_gate(call, call.in(0), call.inout(1), call.integer(3));
  const adalomo::VectorArgs args{call.in(0).as<const float>(), call.in(1).as<const float>(), call.inout(0).as<float>(), call.inout(1).as<const int>(), n, call.attr(0), static_cast<float>(call.attr(1)), static_cast<float>(call.attr(2))};
  start(call, "adalomo_vector", sweep_grid(n, 1), &args);
}

void ratio(const Call& call) {
  const std::int64_t columns = call.in(0).last(), rows = call.in(0).rows();
  same_size("adalomo_ratio", "p", call.in(1).count(), rows * columns);
  same_size("adalomo_ratio", "r", call.in(2).count(), rows);
  same_size("adalomo_ratio", "c", call.in(3).count(), columns);
  const adalomo::RatioArgs args{{call.in(0).as<const float>(), call.in(2).as<const float>(), call.in(3).as<const float>(), call.in(4).as<const float>(), call.in(5).as<const float>(), columns, static_cast<float>(call.attr(0))}, call.in(1).data, call.out(0).as<float>(), call.out(1).as<float>(), rows};
  start(call, KernelName("adalomo_ratio", call.in(1).dtype), row_grid(rows), &args);
}

void vector_ratio(const Call& call) {
  const std::int64_t n = call.in(0).count();
  same_size("adalomo_vector_ratio", "p", call.in(1).count(), n);
  same_size("adalomo_vector_ratio", "v", call.in(2).count(), n);
  const adalomo::RatioArgs args{{call.in(0).as<const float>(), call.in(2).as<const float>(), nullptr, nullptr, call.in(3).as<const float>(), n, static_cast<float>(call.attr(0))}, call.in(1).data, call.out(0).as<float>(), call.out(1).as<float>(), 1};
  start(call, KernelName("adalomo_ratio", call.in(1).dtype), {1}, &args);
}

// key element index weight_decay clip_value rounding eps2 d count
void step_and_write(const Call& call, const char* op, const adalomo::DirectionArgs& direction, const Operand& u2, const Operand& p2, std::int64_t rows) {
  auto* step = static_cast<float*>(call.workspace);
  same_size(op, "p2", p2.count(), u2.count());
  const adalomo::StepArgs args{u2.as<const float>(), p2.as<const float>(), direction.scalars, step, u2.count(), 1.0 / call.attr(8), call.attr(6), call.attr(7), call.attr(3)};
  start(call, "adalomo_step", {1}, &args);
  adalomo::WriteArgs write{{}, direction, step};
  Operand scalars;
  scalars.data = const_cast<float*>(direction.scalars);
  write.update = update_args(call, op, scalars, rows);
  if (call.inout(0).dtype == DType::f16) start(call, "adalomo_update_overflow", sweep_grid(call.in(0).count(), 4), &write);
  start(call, KernelName("adalomo_update", call.inout(0).dtype), update_grid(write.update), &write);
}

void update(const Call& call) {
  const std::int64_t columns = call.in(0).last(), rows = call.in(0).rows();
  same_size("adalomo_update", "r", call.in(1).count(), rows);
  same_size("adalomo_update", "c", call.in(2).count(), columns);
  step_and_write(call, "adalomo_update", {call.in(0).as<const float>(), call.in(1).as<const float>(), call.in(2).as<const float>(), call.in(3).as<const float>(), call.in(6).as<const float>(), columns, static_cast<float>(call.attr(4))}, call.in(4), call.in(5), rows);
}
void vector_update(const Call& call) {
  const std::int64_t n = call.in(0).count();
  same_size("adalomo_vector_update", "v", call.in(1).count(), n);
  step_and_write(call, "adalomo_vector_update", {call.in(0).as<const float>(), call.in(1).as<const float>(), nullptr, nullptr, call.in(4).as<const float>(), n, static_cast<float>(call.attr(4))}, call.in(2), call.in(3), 1);
}
std::size_t step_workspace(const Call&) { return 64; }

constexpr const char* update_attributes = "key element index weight_decay clip_value rounding eps2 d count";

}  // namespace

extern const Kernel kernels_adalomo[] = {
    {"adalomo_moments", "start decay_rate eps1 clip_value index check", accepts<"ff|ffi|">, moments, moments_workspace},
    {"adalomo_columns", "rows decay_rate", accepts<"ffi|f|">, columns, nullptr},
    {"adalomo_ratio", "clip_value", accepts<"fpffff||ff">, ratio, nullptr},
    {"adalomo_vector", "decay_rate eps1 clip_value index check", accepts<"ff|fi|">, vector, nullptr},
    {"adalomo_vector_ratio", "clip_value", accepts<"fpff||ff">, vector_ratio, nullptr},
    {"adalomo_update", update_attributes, accepts<"fffffff|pi|">, update, step_workspace},
    {"adalomo_update", update_attributes, accepts<"fffffff|pi|f">, update, step_workspace},
    {"adalomo_vector_update", update_attributes, accepts<"fffff|pi|">, vector_update, step_workspace},
    {"adalomo_vector_update", update_attributes, accepts<"fffff|pi|f">, vector_update, step_workspace},
    {},
};

}  // namespace lomo
#endif
