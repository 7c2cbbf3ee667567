// rms_norm: y = x rstd w; and its gradient, with the weight's summed over tokens in the one order.
// Also compiled for avx512_bf16, which rounds to bf16 in one instruction.
#include "token_sum.h"
#include "dispatch.h"
#include "row_sum.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {
namespace {

void rms_norm(const Call& call) {
  const std::int64_t h = call.in(1).count(), rows = call.out(1).count();
  same_size("rms_norm", "x", call.in(0).count(), rows * h);
  same_size("rms_norm", "y", call.out(0).count(), rows * h);
  const double eps = call.attr(0);
  with_real(call.in(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T* x = call.in(0).as<const T>();
    const T* w = call.in(1).as<const T>();
    T* y = call.out(0).as<T>();
    float* rstd = call.out(1).as<float>();
    split(call, rows, 1, h * static_cast<std::int64_t>(2 * sizeof(T)), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* in = x + r * h;
        T* out = y + r * h;
        const float squares = row_sum(h, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
          const f32x16 v = load(in + j, n);
          return v * v;
        });
        const float inverse = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(squares) / static_cast<double>(h) + eps));
        rstd[r] = inverse;
        sweep(0, h, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS { store(out + j, load(in + j, n) * inverse * load(w + j, n), n); });
      }
    });
  });
}

template <class T> void backward(const Call& call, std::int64_t rows, std::int64_t h) {
  const T* x = call.in(0).as<const T>();
  const T* w = call.in(1).as<const T>();
  const float* rstd = call.in(2).as<const float>();
  const T* dy = call.in(3).as<const T>();
  float* sums = call.inout(0).as<float>();
  T* dx = call.out(0).as<T>();
  const std::int64_t start = call.integer(0);
  const std::int64_t row_bytes = h * static_cast<std::int64_t>(2 * sizeof(T));
  const int threads = threads_for(call, rows * row_bytes);
  // Blocks of rows that stay in the caches, each swept twice: columns over the threads for the sums, then rows for dx. Several threads
  // meet twice a block, which costs a time slice where cores are shared, so their blocks are larger.
  const std::int64_t cached = (threads == 1 ? 256 : 2048) * 1024;
  const std::int64_t each = larger<std::int64_t>(4, cached / larger<std::int64_t>(row_bytes, 1) / 4 * 4), block = each * threads;
  const std::int64_t columns = ceil_div(ceil_div(h, 64), threads) * 64;

  const auto add_columns = [=](std::int64_t first, std::int64_t last, int t) {
    const std::int64_t begin = smaller(h, t * columns), end = smaller(h, begin + columns);
    add_rows(sums, h, begin, end, start, first, last, [=](std::int64_t r, std::int64_t j, std::int64_t n) LOMO_ALWAYS {
      return load(dy + r * h + j, n) * load(x + r * h + j, n) * rstd[r];
    });
  };
  const auto rows_dx = [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      const T* in = x + r * h;
      const T* d = dy + r * h;
      T* out = dx + r * h;
      const float dot = row_sum(h, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS { return load(d + j, n) * load(w + j, n) * load(in + j, n); });
      const double inverse = rstd[r];
      const float a = rstd[r], b = static_cast<float>(-dot * inverse * inverse * inverse / static_cast<double>(h));
      sweep(0, h, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS {
        store(out + j, fma(load(in + j, n), f32x16(b), load(d + j, n) * load(w + j, n) * a), n);
      });
    }
  };
  if (threads == 1) {
    for (std::int64_t first = 0; first < rows; first += block) {
      const std::int64_t last = smaller(rows, first + block);
      add_columns(first, last, 0);
      rows_dx(first, last);
    }
    return;
  }
#pragma omp parallel num_threads(threads)
  for (std::int64_t first = 0; first < rows; first += block) {
    const std::int64_t last = smaller(rows, first + block), piece = ceil_div(last - first, threads);
#pragma omp for schedule(static)
    for (int t = 0; t < threads; ++t) add_columns(first, last, t);
#pragma omp for schedule(static)
    for (int t = 0; t < threads; ++t) rows_dx(first + smaller(last - first, t * piece), first + smaller(last - first, (t + 1) * piece));
  }
}

void rms_norm_backward(const Call& call) {
  const std::int64_t h = call.in(1).count(), rows = call.in(2).count();
  same_size("rms_norm_backward", "x", call.in(0).count(), rows * h);
  same_size("rms_norm_backward", "dy", call.in(3).count(), rows * h);
  same_size("rms_norm_backward", "sums", call.inout(0).count(), 2 * h);
  same_size("rms_norm_backward", "dx", call.out(0).count(), rows * h);
  with_real(call.in(0).dtype, [&](auto* t) { backward<pointee<decltype(t)>>(call, rows, h); });
}

}  // namespace

extern const Kernel kernels_rms_norm[];
const Kernel kernels_rms_norm[] = {
    {"rms_norm", "eps", accepts<"rr||rf">, rms_norm, nullptr},
    {"rms_norm_backward", "start", accepts<"rrfr|f|r">, rms_norm_backward, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
