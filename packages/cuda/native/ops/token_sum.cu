// token_sum: rows summed in token order, chunk by chunk, carried over launches; sums_value: the value of such a sum.
#include "gpu/storage.h"
#include "gpu/token_sum.h"

namespace lomo::token_sum {

struct RowsArgs {
  const void* x;
  gpu::TokenSum sum;
};
struct ValueArgs {
  const float* sums;
  float* v;
  std::int64_t n;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class T> __device__ __forceinline__ void sum_rows(const RowsArgs& a) {
  const T* x = static_cast<const T*>(a.x);
  sum_chunk(a.sum, [&](i64 row, i64 column) { return get(x + row * a.sum.n + column); });
}
__device__ __forceinline__ void value(const ValueArgs& a) {
  for (i64 i = sweep_start(); i < a.n; i += sweep_stride()) a.v[i] = a.sums[i] + a.sums[a.n + i];
}
LOMO_KERNEL(token_sum_f32, 256, RowsArgs, sum_rows<float>)  // 40 registers, 0 bytes
LOMO_KERNEL(token_sum_bf16, 256, RowsArgs, sum_rows<bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(token_sum_close, 256, TokenSum, close_chunks)  // 40 registers, 0 bytes
LOMO_KERNEL(sums_value_f32, 256, ValueArgs, value)  // 32 registers, 0 bytes
#endif

}  // namespace lomo::token_sum

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

std::int64_t rows_of(const Call& call) { return call.inout(0).last() == 0 ? 0 : call.in(0).count() / call.inout(0).last(); }

void sum_rows(const Call& call) {
  const Operand& x = call.in(0);
  const std::int64_t n = call.inout(0).last(), rows = rows_of(call), first = call.integer(0);
  same_size("token_sum", "sums", call.inout(0).count(), 2 * n);
  same_size("token_sum", "x", x.count(), rows * n);
  if (rows == 0) return;
  const token_sum::RowsArgs args{x.data, {call.inout(0).as<float>(), static_cast<float*>(call.workspace), n, rows, first}};
  start(call, KernelName("token_sum", x.dtype), {ceil_div(n, 256), gpu::token_chunks(first, rows)}, &args);
  start(call, "token_sum_close", {ceil_div(n, 256)}, &args.sum);
}
std::size_t workspace(const Call& call) { return static_cast<std::size_t>(gpu::token_chunks(call.integer(0), rows_of(call)) * call.inout(0).last()) * sizeof(float); }

void value(const Call& call) {
  const std::int64_t n = call.out(0).count();
  same_size("sums_value", "sums", call.in(0).count(), 2 * n);
  const token_sum::ValueArgs args{call.in(0).as<const float>(), call.out(0).as<float>(), n};
  start(call, "sums_value_f32", sweep_grid(n, 1), &args);
}

}  // namespace

extern const Kernel kernels_token_sum[] = {
    {"token_sum", "start", accepts<"r|f|">, sum_rows, workspace},
    {"sums_value", "", accepts<"f||f">, value, nullptr},
    {},
};

}  // namespace lomo
#endif
