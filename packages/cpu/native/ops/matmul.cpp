// matmul and matmul_add: c = alpha op(a) op(b) (+ bias), or added to c, by oneDNN.
#include "onednn/products.h"

#include <cstring>

#include "lomo/error.h"

namespace lomo::LOMO_ISA {
namespace {

std::string spell(const Operand& o) { return "[" + std::to_string(o.dim[0]) + ", " + std::to_string(o.dim[1]) + "]"; }

bool real(DType t) { return t == DType::f32 || t == DType::bf16; }

bool accepts_matmul(const Signature& s) {
  if (s.n_inouts != 0 || s.n_outs != 1 || (s.n_ins != 2 && s.n_ins != 3)) return false;
  for (int i = 1; i < s.n_ins; ++i)
    if (s.ins[i] != s.ins[0]) return false;
  return real(s.ins[0]) && real(s.outs[0]);
}

bool accepts_add(const Signature& s) {
  return s.n_ins == 2 && s.n_inouts == 1 && s.n_outs == 0 && s.ins[0] == s.ins[1] && real(s.ins[0]) && real(s.inouts[0]);
}

onednn::Shape shape_of(const Call& call, const Operand& c, bool add) {
  const Operand &a = call.in(0), &b = call.in(1);
  onednn::Shape s;
  s.ta = call.flag(0);
  s.tb = call.flag(1);
  s.alpha = static_cast<float>(call.attr(2));
  s.m = s.ta ? a.dim[1] : a.dim[0];
  s.k = s.ta ? a.dim[0] : a.dim[1];
  s.n = s.tb ? b.dim[0] : b.dim[1];
  s.lda = a.dim[1];
  s.ldb = b.dim[1];
  s.add = add;
  s.bias = !add && call.ins == 3;
  s.in = a.dtype;
  s.out = c.dtype;
  if (a.rank != 2 || b.rank != 2 || c.rank != 2 || (s.tb ? b.dim[1] : b.dim[0]) != s.k || c.dim[0] != s.m || c.dim[1] != s.n || (s.bias && call.in(2).count() != s.n))
    throw Error("ShapeError", std::string(add ? "matmul_add" : "matmul") + ": a " + spell(a) + (s.ta ? " (transposed)" : "") + ", b " + spell(b) + (s.tb ? " (transposed)" : "") +
                                  (s.bias ? ", bias [" + std::to_string(call.in(2).count()) + "]" : "") + ", c " + spell(c) + " do not fit together");
  return s;
}

// alpha scales the product alone, oneDNN's post-operation would scale the bias too: bias joins as what c holds already.
onednn::Shape planned(onednn::Shape s) {
  if (s.bias && s.alpha != 1) {
    s.bias = false;
    s.add = true;
  }
  return s;
}

void fill_rows(const onednn::Shape& s, const Operand& bias, const Operand& c) {
  for (std::int64_t i = 0; i < s.m; ++i)
    for (std::int64_t j = 0; j < s.n; ++j) {
      const std::uint32_t bits = s.in == DType::f32 ? bias.as<std::uint32_t>()[j] : static_cast<std::uint32_t>(bias.as<std::uint16_t>()[j]) << 16;
      if (s.out == DType::f32) c.as<std::uint32_t>()[i * s.n + j] = bits;
      else c.as<std::uint16_t>()[i * s.n + j] = static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}

void run(const Call& call, const Operand& c, bool add) {
  const onednn::Shape s = shape_of(call, c, add);
  if (s.m == 0 || s.n == 0) return;
  if (s.bias && (s.alpha != 1 || s.k == 0)) fill_rows(s, call.in(2), c);
  if (s.k == 0) {
    if (!add && !s.bias) std::memset(c.data, 0, c.bytes());
    return;
  }
  call.context->products.get(planned(s)).run(call.in(0).data, call.in(1).data, s.bias ? call.in(2).data : nullptr, c.data, call.workspace);
}

std::size_t workspace(const Call& call, const Operand& c, bool add) {
  const onednn::Shape s = shape_of(call, c, add);
  return s.m == 0 || s.n == 0 || s.k == 0 ? 0 : call.context->products.get(planned(s)).workspace();
}

void matmul(const Call& call) { run(call, call.out(0), false); }
void matmul_add(const Call& call) { run(call, call.inout(0), true); }
std::size_t matmul_workspace(const Call& call) { return workspace(call, call.out(0), false); }
std::size_t matmul_add_workspace(const Call& call) { return workspace(call, call.inout(0), true); }

}  // namespace

extern const Kernel kernels_matmul[] = {
    {"matmul", "ta tb alpha", accepts_matmul, matmul, matmul_workspace},
    {"matmul_add", "ta tb alpha", accepts_add, matmul_add, matmul_add_workspace},
    {},
};

}  // namespace lomo::LOMO_ISA
