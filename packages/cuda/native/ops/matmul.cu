// matmul and matmul_add by cuBLASLt: c = alpha op(a) op(b) (+ bias), or added to c. A bias is what c holds beforehand; a product whose c
// is narrower than its operands passes through f32 in the workspace, and a weight kept as f16 beside f32 activations is widened there.
#include "gpu/storage.h"

namespace lomo::matmul {

// to [rows, columns] = from, row after row; a stride of 0 repeats one row.
struct RowsArgs {
  const void* from;
  void* to;
  std::int64_t rows, columns, from_stride, to_stride;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class S, class D> __device__ __forceinline__ void convert_rows(const RowsArgs& a) {
  const S* from = static_cast<const S*>(a.from);
  D* to = static_cast<D*>(a.to);
  for (i64 row = blockIdx.y; row < a.rows; row += gridDim.y)
    for (i64 j = sweep_start(); j < a.columns; j += sweep_stride()) put(to + row * a.to_stride + j, get(from + row * a.from_stride + j));
}
LOMO_KERNEL(rows_f32_f32, 256, RowsArgs, convert_rows<float, float>)  // 40 registers, 0 bytes
LOMO_KERNEL(rows_f32_bf16, 256, RowsArgs, convert_rows<float, bf16>)  // 40 registers, 0 bytes
LOMO_KERNEL(rows_bf16_f32, 256, RowsArgs, convert_rows<bf16, float>)  // 40 registers, 0 bytes
LOMO_KERNEL(rows_bf16_bf16, 256, RowsArgs, convert_rows<bf16, bf16>)  // 32 registers, 0 bytes
LOMO_KERNEL(rows_f16_f32, 256, RowsArgs, convert_rows<f16, float>)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::matmul

#if !defined(LOMO_DEVICE)
#include "addon/context.h"
#include "addon/launch.h"

namespace lomo {
namespace {

std::string spell(const Operand& o) { return "[" + std::to_string(o.dim[0]) + ", " + std::to_string(o.dim[1]) + "]"; }
bool real(DType t) { return t == DType::f32 || t == DType::bf16; }
std::size_t rounded(std::int64_t count) { return (static_cast<std::size_t>(count) * sizeof(float) + 255) / 256 * 256; }

bool accepts_weight(const Signature& s) {
  const bool mixed = s.ins[0] == DType::f32 && s.ins[1] == DType::f16;
  return mixed || (real(s.ins[0]) && s.ins[1] == s.ins[0]);
}
bool accepts_matmul(const Signature& s) {
  if (s.n_inouts != 0 || s.n_outs != 1 || (s.n_ins != 2 && s.n_ins != 3) || !accepts_weight(s)) return false;
  if (s.n_ins == 3 && s.ins[2] != s.ins[1]) return false;
  return s.ins[1] == DType::f16 ? s.outs[0] == DType::f32 : real(s.outs[0]);
}
bool accepts_add(const Signature& s) {
  if (s.n_ins != 2 || s.n_inouts != 1 || s.n_outs != 0 || !accepts_weight(s)) return false;
  return s.ins[1] == DType::f16 ? s.inouts[0] == DType::f32 : real(s.inouts[0]);
}

void convert_rows(const Call& call, const void* from, DType from_type, std::int64_t from_stride, void* to, DType to_type, std::int64_t to_stride, std::int64_t rows, std::int64_t columns) {
  const matmul::RowsArgs args{from, to, rows, columns, from_stride, to_stride};
  start(call, KernelName("rows", from_type, to_type), {std::min<std::int64_t>(ceil_div(columns, 256), 1024), std::min<std::int64_t>(rows, 4096)}, &args);
}

// How one launch goes, and where its scratch lies: the product's own, f32 columns of c, f32 columns of the weight.
struct Way {
  Product product;
  bool add = false, bias = false, through_f32 = false, widened = false;
  std::int64_t panel = 0;  // columns of c at a time
  std::size_t at_c = 0, at_weight = 0, bytes = 0;
};

constexpr std::int64_t widened_most = 16 << 20;  // f32 elements of a weight at a time: 64 MiB

Way way_of(const Call& call, const Operand& c, bool add) {
  const Operand &a = call.in(0), &b = call.in(1);
  Way w;
  Product& p = w.product;
  p.ta = call.flag(0);
  p.tb = call.flag(1);
  p.m = p.ta ? a.dim[1] : a.dim[0];
  p.k = p.ta ? a.dim[0] : a.dim[1];
  p.n = p.tb ? b.dim[0] : b.dim[1];
  p.lda = a.dim[1];
  p.ldb = b.dim[1];
  p.ldc = p.n;
  p.in = a.dtype;
  p.out = c.dtype;
  w.add = add;
  w.bias = !add && call.ins == 3;
  if (a.rank != 2 || b.rank != 2 || c.rank != 2 || (p.tb ? b.dim[1] : b.dim[0]) != p.k || c.dim[0] != p.m || c.dim[1] != p.n || (w.bias && call.in(2).count() != p.n))
    throw Error("ShapeError", std::string(add ? "matmul_add" : "matmul") + ": a " + spell(a) + (p.ta ? " (transposed)" : "") + ", b " + spell(b) + (p.tb ? " (transposed)" : "") +
                                  (w.bias ? ", bias [" + std::to_string(call.in(2).count()) + "]" : "") + ", c " + spell(c) + " do not fit together");
  if (p.m == 0 || p.n == 0) return w;
  w.through_f32 = p.in == DType::f32 && p.out != DType::f32;
  w.widened = b.dtype == DType::f16;
  w.panel = w.widened ? std::min(p.n, std::max<std::int64_t>(64, widened_most / std::max<std::int64_t>(p.k, 1) / 64 * 64)) : p.n;
  w.at_c = product_workspace;
  w.at_weight = w.at_c + (w.through_f32 ? rounded(p.m * p.n) : 0);
  w.bytes = w.at_weight + (w.widened ? rounded(w.panel * p.k) : 0);
  return w;
}

// The product of columns `from` on, as it is given to the library.
Product part_of(const Way& w, std::int64_t from) {
  Product part = w.product;
  if (w.through_f32) part.out = DType::f32;
  part.n = std::min(w.panel, w.product.n - from);
  if (w.widened) part.ldb = part.tb ? part.k : part.n;
  return part;
}

// Scratch of a launch; where only the shapes are asked about, the products they mean are expected.
std::size_t plan(const Call& call, const Operand& c, bool add) {
  const Way w = way_of(call, c, add);
  const Product& p = w.product;
  if (call.context != nullptr && call.in(0).data == nullptr && p.m > 0 && p.n > 0 && p.k > 0)
    for (std::int64_t from = 0; from < p.n; from += w.panel) call.context->products.choices().expect({part_of(w, from), part_of(w, from).wide()});
  return w.bytes;
}

void run(const Call& call, const Operand& c, bool add) {
  Way w = way_of(call, c, add);
  Product& p = w.product;
  if (p.m == 0 || p.n == 0) return;
  auto* scratch = static_cast<char*>(call.workspace);
  void* to = w.through_f32 ? scratch + w.at_c : c.data;
  if (w.through_f32) p.out = DType::f32;
  if (w.bias) convert_rows(call, call.in(2).data, call.in(2).dtype, 0, to, p.out, p.n, p.m, p.n);
  else if (w.add && w.through_f32) convert_rows(call, c.data, c.dtype, p.n, to, DType::f32, p.n, p.m, p.n);
  else if (!w.add && p.k == 0) zero_on_device(call, to, static_cast<std::size_t>(p.m * p.n) * size_of(p.out));
  const std::int64_t n = p.n, ldb = p.ldb;
  for (std::int64_t from = 0; p.k > 0 && from < n; from += w.panel) {
    const Product part = part_of(w, from);
    const Operand& b = call.in(1);
    const void* weight = static_cast<const char*>(b.data) + from * (p.tb ? ldb : 1) * static_cast<std::int64_t>(size_of(b.dtype));
    if (w.widened) {
      const std::int64_t rows = p.tb ? part.n : p.k, columns = p.tb ? p.k : part.n;
      convert_rows(call, weight, DType::f16, ldb, scratch + w.at_weight, DType::f32, columns, rows, columns);
      weight = scratch + w.at_weight;
    }
    void* columns_of_c = static_cast<char*>(to) + from * static_cast<std::int64_t>(size_of(p.out));
    const float beta = w.add || w.bias ? 1.0f : 0.0f;
    call.context->products.run(part, {call.in(0).data, weight, columns_of_c, static_cast<float>(call.attr(2)), beta, scratch}, call.context->stream);
  }
  if (w.through_f32) convert_rows(call, to, DType::f32, n, c.data, c.dtype, n, p.m, n);
}

void run_matmul(const Call& call) { run(call, call.out(0), false); }
void run_matmul_add(const Call& call) { run(call, call.inout(0), true); }
std::size_t matmul_workspace(const Call& call) { return plan(call, call.out(0), false); }
std::size_t matmul_add_workspace(const Call& call) { return plan(call, call.inout(0), true); }

}  // namespace

extern const Kernel kernels_matmul[] = {
    {"matmul", "ta tb alpha", accepts_matmul, run_matmul, matmul_workspace},
    {"matmul_add", "ta tb alpha", accepts_add, run_matmul_add, matmul_add_workspace},
    {},
};

}  // namespace lomo
#endif
