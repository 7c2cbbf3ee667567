// rms_norm: y = x rstd w, a block a row; and its gradient, with the weight's summed over tokens in the one order.
#include "gpu/reduce.h"
#include "gpu/storage.h"
#include "gpu/token_sum.h"

namespace lomo::rms_norm {

struct NormArgs {
  const void *x, *w;
  void* y;
  float* rstd;
  std::int64_t rows, h;
  double eps, inverse_h;
  bool wide;
};
struct BackwardArgs {
  const void *x, *w, *dy;
  const float* rstd;
  void* dx;
  std::int64_t rows, h;
  double inverse_h;
  bool wide;
};
struct SumArgs {
  const void *x, *dy;
  const float* rstd;
  gpu::TokenSum sum;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

// A block over the elements of one row; `wide` where eight may be taken at once.
template <class Eight, class One> __device__ __forceinline__ void sweep_row(i64 h, bool wide, Eight eight, One one) {
  const i64 groups = wide ? h / 8 : 0;
  for (i64 g = threadIdx.x; g < groups; g += blockDim.x) eight(8 * g);
  for (i64 j = 8 * groups + threadIdx.x; j < h; j += blockDim.x) one(j);
}

template <class T, class W> __device__ __forceinline__ void forward(const NormArgs& a) {
  const W* w = static_cast<const W*>(a.w);
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const T* x = static_cast<const T*>(a.x) + row * a.h;
    T* y = static_cast<T*>(a.y) + row * a.h;
    float squares = 0;
    sweep_row(
        a.h, a.wide,
        [&](i64 j) {
          float v[8];
          load8(v, x + j);
#pragma unroll
          for (int k = 0; k < 8; ++k) squares += v[k] * v[k];
        },
        [&](i64 j) { squares += get(x + j) * get(x + j); });
    const float total = block_sum(squares);
    const float inverse = static_cast<float>(rsqrt(static_cast<double>(total) * a.inverse_h + a.eps));
    if (threadIdx.x == 0) a.rstd[row] = inverse;
    sweep_row(
        a.h, a.wide,
        [&](i64 j) {
          float v[8], s[8];
          load8(v, x + j);
          load8(s, w + j);
#pragma unroll
          for (int k = 0; k < 8; ++k) v[k] = v[k] * inverse * s[k];
          store8(y + j, v);
        },
        [&](i64 j) { put(y + j, get(x + j) * inverse * get(w + j)); });
  }
}

template <class T, class W> __device__ __forceinline__ void backward(const BackwardArgs& a) {
  const W* w = static_cast<const W*>(a.w);
  for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const T *x = static_cast<const T*>(a.x) + row * a.h, *dy = static_cast<const T*>(a.dy) + row * a.h;
    T* dx = static_cast<T*>(a.dx) + row * a.h;
    float dot = 0;
    sweep_row(
        a.h, a.wide,
        [&](i64 j) {
          float v[8], d[8], s[8];
          load8(v, x + j);
          load8(d, dy + j);
          load8(s, w + j);
#pragma unroll
          for (int k = 0; k < 8; ++k) dot += d[k] * s[k] * v[k];
        },
        [&](i64 j) { dot += get(dy + j) * get(w + j) * get(x + j); });
    dot = block_sum(dot);
    const float scale = a.rstd[row];
    const double inverse = scale;
    const float b = static_cast<float>(-static_cast<double>(dot) * inverse * inverse * inverse * a.inverse_h);
    sweep_row(
        a.h, a.wide,
        [&](i64 j) {
          float v[8], d[8], s[8];
          load8(v, x + j);
          load8(d, dy + j);
          load8(s, w + j);
#pragma unroll
          for (int k = 0; k < 8; ++k) v[k] = fmaf(v[k], b, d[k] * s[k] * scale);
          store8(dx + j, v);
        },
        [&](i64 j) { put(dx + j, fmaf(get(x + j), b, get(dy + j) * get(w + j) * scale)); });
  }
}

template <class T> __device__ __forceinline__ void sum_weight(const SumArgs& a) {
  const T *x = static_cast<const T*>(a.x), *dy = static_cast<const T*>(a.dy);
  sum_chunk(a.sum, [&](i64 row, i64 column) { return get(dy + row * a.sum.n + column) * get(x + row * a.sum.n + column) * a.rstd[row]; });
}
LOMO_KERNEL(rms_norm_f32_f32, 256, NormArgs, forward<float, float>)  // 64 registers, 128 bytes
LOMO_KERNEL(rms_norm_f32_f16, 256, NormArgs, forward<float, f16>)  // 64 registers, 128 bytes
LOMO_KERNEL(rms_norm_bf16_bf16, 256, NormArgs, forward<bf16, bf16>)  // 48 registers, 128 bytes
LOMO_KERNEL(rms_norm_backward_f32_f32, 256, BackwardArgs, backward<float, float>)  // 64 registers, 128 bytes
LOMO_KERNEL(rms_norm_backward_f32_f16, 256, BackwardArgs, backward<float, f16>)  // 48 registers, 128 bytes
LOMO_KERNEL(rms_norm_backward_bf16_bf16, 256, BackwardArgs, backward<bf16, bf16>)  // 56 registers, 128 bytes
LOMO_KERNEL(rms_norm_sum_f32, 256, SumArgs, sum_weight<float>)  // 40 registers, 0 bytes
LOMO_KERNEL(rms_norm_sum_bf16, 256, SumArgs, sum_weight<bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(rms_norm_close, 256, TokenSum, close_chunks)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::rms_norm

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void forward(const Call& call) {
  const Operand &x = call.in(0), &w = call.in(1), &y = call.out(0);
  const std::int64_t h = w.count(), rows = call.out(1).count();
  same_size("rms_norm", "x", x.count(), rows * h);
  same_size("rms_norm", "y", y.count(), rows * h);
  // Rows follow one another: all are aligned where the first is and h is a multiple of eight.
  const rms_norm::NormArgs args{x.data, w.data, y.data, call.out(1).as<float>(), rows, h, call.attr(0), 1.0 / static_cast<double>(h), h % 8 == 0 && wide({x.data, w.data, y.data})};
  start(call, KernelName("rms_norm", x.dtype, w.dtype), row_grid(rows, h), &args);
}

void backward(const Call& call) {
  const Operand &x = call.in(0), &w = call.in(1), &dy = call.in(3), &dx = call.out(0);
  const std::int64_t h = w.count(), rows = call.in(2).count(), first = call.integer(0);
  same_size("rms_norm_backward", "x", x.count(), rows * h);
  same_size("rms_norm_backward", "dy", dy.count(), rows * h);
  same_size("rms_norm_backward", "sums", call.inout(0).count(), 2 * h);
  same_size("rms_norm_backward", "dx", dx.count(), rows * h);
  if (rows == 0 || h == 0) return;
  const float* rstd = call.in(2).as<const float>();
  const rms_norm::SumArgs sum{x.data, dy.data, rstd, {call.inout(0).as<float>(), static_cast<float*>(call.workspace), h, rows, first}};
  start(call, KernelName("rms_norm_sum", x.dtype), {ceil_div(h, 256), gpu::token_chunks(first, rows)}, &sum);
  start(call, "rms_norm_close", {ceil_div(h, 256)}, &sum.sum);
  const rms_norm::BackwardArgs args{x.data, w.data, dy.data, rstd, dx.data, rows, h, 1.0 / static_cast<double>(h), h % 8 == 0 && wide({x.data, w.data, dy.data, dx.data})};
  start(call, KernelName("rms_norm_backward", x.dtype, w.dtype), row_grid(rows, h), &args);
}

std::size_t workspace(const Call& call) { return static_cast<std::size_t>(gpu::token_chunks(call.integer(0), call.in(2).count()) * call.in(1).count()) * sizeof(float); }

}  // namespace

extern const Kernel kernels_rms_norm[] = {
    {"rms_norm", "eps", accepts<"rr||rf">, forward, nullptr},
    {"rms_norm", "eps", accepts<"fh||ff">, forward, nullptr},
    {"rms_norm_backward", "start", accepts<"rrfr|f|r">, backward, workspace},
    {"rms_norm_backward", "start", accepts<"fhff|f|f">, backward, workspace},
    {},
};

}  // namespace lomo
#endif
