// attention_backward: delta = sum of do o over a row first; then dq by blocks of rows, and dk and dv by blocks of keys that pass over all
// rows of their group, queries ascending, heads ascending within a query. Weights are made again from lse. No atomics; every sum has one order.
//
//   kernel              rows  keys  columns  threads  shared memory (dynamic)
//   dq, 64, bf16          64    64       64      128   48 KiB
//   dq, 128, bf16         64    64      128      128   96 KiB
//   dq, 256, bf16         64    16      256      128   96 KiB
//   dq, 64, f32           64    32       64      128   64 KiB
//   dq, 128, f32          32    32      128       64   96 KiB
//   dq, 256, f32          32     8      256       64   96 KiB
//   keys, 64, bf16        32    64       64      128   32.5 KiB
//   keys, 128, bf16       32    64      128      128   64.5 KiB
//   keys, 256, bf16       16    64      128      128   96.25 KiB
//   keys, 64, f32         16    64       64      128   48.25 KiB
//   keys, 128, f32        32    32      128       64   96.5 KiB
//   keys, 256, f32         8    32      128       64   96.1 KiB
// Of dk and dv a block of `keys` holds `columns` in registers; where head_dim has more, two blocks share a key block.
// Budget: 255 registers, 0 bytes of shared memory.
#include "gpu/attention_keys.h"
#include "gpu/attention_rows.h"

namespace lomo::attention_backward {

struct Half;  // any 16-bit dtype
template <class T, int D> struct CutRows;
template <int D> struct CutRows<float, D> {
  static constexpr int warps = D == 64 ? 4 : 2, keys = D == 256 ? 8 : 32, bytes = 4;
};
template <int D> struct CutRows<Half, D> {
  static constexpr int warps = 4, keys = D == 256 ? 16 : 64, bytes = 2;
};
template <class T, int D> struct CutKeys;
template <int D> struct CutKeys<float, D> {
  static constexpr int warps = D == 64 ? 4 : 2, rows = D == 256 ? 8 : D == 128 ? 32 : 16, columns = D == 256 ? 128 : D, bytes = 4;
};
template <int D> struct CutKeys<Half, D> {
  static constexpr int warps = 4, rows = D == 256 ? 16 : 32, columns = D == 256 ? 128 : D, bytes = 2;
};
// q and do, and two stages of k and v.
template <class C> constexpr int rows_shared(int dim) { return (2 * 16 * C::warps + 4 * C::keys) * dim * C::bytes; }
// k and v, and two stages of q, do, lse and delta.
template <class C> constexpr int keys_shared(int dim) { return (2 * 16 * C::warps + 4 * C::rows) * dim * C::bytes + 4 * C::rows * 4; }
constexpr int most = 99 * 1024;
static_assert(rows_shared<CutRows<Half, 128>>(128) <= most && rows_shared<CutRows<Half, 256>>(256) <= most);
static_assert(rows_shared<CutRows<float, 128>>(128) <= most && rows_shared<CutRows<float, 256>>(256) <= most);
static_assert(keys_shared<CutKeys<Half, 128>>(128) <= most && keys_shared<CutKeys<Half, 256>>(256) <= most);
static_assert(keys_shared<CutKeys<float, 128>>(128) <= most && keys_shared<CutKeys<float, 256>>(256) <= most);

#if defined(LOMO_DEVICE)
using namespace gpu;

// Eight lanes a row.
template <class T> __device__ __forceinline__ void delta(const AttentionArgs& a) {
  const T *const o = static_cast<const T*>(a.o), *const dout = static_cast<const T*>(a.dout);
  const int rows = a.tokens * a.heads, row = static_cast<int>(sweep_start() / 8);
  const int lane = static_cast<int>(threadIdx.x) % 8;
  float sum = 0.0f;
  if (row < rows) {
    const i64 at = static_cast<i64>(row) * a.d;
    for (int c = 8 * lane; c < a.d; c += 64) {
      if (a.wide) {
        float x[8], y[8];
        load8(x, o + at + c);
        load8(y, dout + at + c);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum = fmaf(x[i], y[i], sum);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
          if (c + i < a.d) sum = fmaf(get(o + at + c + i), get(dout + at + c + i), sum);
      }
    }
  }
#pragma unroll
  for (int bits = 4; bits > 0; bits /= 2) sum += __shfl_xor_sync(whole_warp, sum, bits);
  if (row < rows && lane == 0) a.delta[static_cast<i64>(row % a.heads) * a.tokens + row / a.heads] = sum;
}

LOMO_KERNEL(attention_delta_f32, 256, AttentionArgs, delta<float>)  // 48 registers, 0 bytes
LOMO_KERNEL(attention_delta_bf16, 256, AttentionArgs, delta<bf16>)  // 48 registers, 0 bytes
LOMO_KERNEL(attention_dq_64_f32, 128, AttentionArgs, rows_backward<float, 64, CutRows<float, 64>>)  // 152 registers, 0 bytes
LOMO_KERNEL(attention_dq_128_f32, 64, AttentionArgs, rows_backward<float, 128, CutRows<float, 128>>)  // 176 registers, 0 bytes
LOMO_KERNEL(attention_dq_256_f32, 64, AttentionArgs, rows_backward<float, 256, CutRows<float, 256>>)  // 256 registers, 0 bytes
LOMO_KERNEL(attention_dq_64_bf16, 128, AttentionArgs, rows_backward<bf16, 64, CutRows<Half, 64>>)  // 168 registers, 0 bytes
LOMO_KERNEL(attention_dq_128_bf16, 128, AttentionArgs, rows_backward<bf16, 128, CutRows<Half, 128>>)  // 208 registers, 0 bytes
LOMO_KERNEL(attention_dq_256_bf16, 128, AttentionArgs, rows_backward<bf16, 256, CutRows<Half, 256>>)  // 232 registers, 0 bytes
LOMO_KERNEL(attention_keys_64_f32, 128, AttentionArgs, keys_backward<float, 64, CutKeys<float, 64>>)  // 152 registers, 0 bytes
LOMO_KERNEL(attention_keys_128_f32, 64, AttentionArgs, keys_backward<float, 128, CutKeys<float, 128>>)  // 256 registers, 0 bytes
LOMO_KERNEL(attention_keys_256_f32, 64, AttentionArgs, keys_backward<float, 256, CutKeys<float, 256>>)  // 248 registers, 0 bytes
LOMO_KERNEL(attention_keys_64_bf16, 128, AttentionArgs, keys_backward<bf16, 64, CutKeys<Half, 64>>)  // 168 registers, 0 bytes
LOMO_KERNEL(attention_keys_128_bf16, 128, AttentionArgs, keys_backward<bf16, 128, CutKeys<Half, 128>>)  // 248 registers, 0 bytes
LOMO_KERNEL(attention_keys_256_bf16, 128, AttentionArgs, keys_backward<bf16, 256, CutKeys<Half, 256>>)  // 232 registers, 0 bytes
#endif

}  // namespace lomo::attention_backward

#if !defined(LOMO_DEVICE)
#include "addon/attention.h"

namespace lomo {
namespace {

using namespace attention_backward;

template <int D, class Rows, class Keys> void launch(const Call& call, const gpu::AttentionArgs& args) {
  const std::string dim = std::to_string(D);
  const std::int64_t rows = ceil_div(std::int64_t{args.tokens} * args.per_group, 16 * Rows::warps) + args.segments + 2, keys = ceil_div(args.keys, 16 * Keys::warps) + args.segments + 2;
  start(call, KernelName(("attention_dq_" + dim).c_str(), call.in(0).dtype), {rows, args.groups, 32 * Rows::warps, rows_shared<Rows>(D)}, &args);
  start(call, KernelName(("attention_keys_" + dim).c_str(), call.in(0).dtype), {keys, std::int64_t{args.groups} * (D / Keys::columns), 32 * Keys::warps, keys_shared<Keys>(D)}, &args);
}

template <int D> void launch(const Call& call, const gpu::AttentionArgs& args) {
  if (call.in(0).dtype == DType::f32) launch<D, CutRows<float, D>, CutKeys<float, D>>(call, args);
  else launch<D, CutRows<Half, D>, CutKeys<Half, D>>(call, args);
}

void run(const Call& call) {
  const char* const op = "attention_backward";
  gpu::AttentionArgs args = attention_args(op, call);
  const Operand &o = call.in(3), &lse = call.in(4), &dout = call.in(5), &dq = call.out(0), &dk = call.out(1), &dv = call.out(2);
  same_size(op, "o", o.count(), call.in(0).count());
  same_size(op, "lse", lse.count(), std::int64_t{args.tokens} * args.heads);
  same_size(op, "do", dout.count(), call.in(0).count());
  same_size(op, "dq", dq.count(), call.in(0).count());
  same_size(op, "dk", dk.count(), call.in(1).count());
  same_size(op, "dv", dv.count(), call.in(1).count());
  args.o = o.data, args.lse = lse.as<float>(), args.dout = dout.data, args.dq = dq.data, args.dk = dk.data, args.dv = dv.data;
  args.delta = static_cast<float*>(call.workspace);
  args.wide = args.wide && args.d % 8 == 0 && wide({o.data, dout.data, dq.data, dk.data, dv.data});
  start(call, KernelName("attention_delta", call.in(0).dtype), {ceil_div(lse.count(), 32)}, &args);
  if (args.d <= 64) launch<64>(call, args);
  else if (args.d <= 128) launch<128>(call, args);
  else launch<256>(call, args);
}

std::size_t workspace(const Call& call) { return static_cast<std::size_t>(call.in(4).count()) * sizeof(float); }

}  // namespace

extern const Kernel kernels_attention_backward[] = {
    {"attention_backward", "scale causal window max_q max_k", accepts<"rrrrfrii||rrr">, run, workspace},
    {},
};

}  // namespace lomo
#endif
