// weight_grad and weight_grad_add: g = dy[:, row..]^T x, summed over tokens in chunks of 512, ascending, in f32.
#include "onednn/products.h"

#include <algorithm>
#include <cstring>

#include "lomo/error.h"

namespace lomo::LOMO_ISA {
namespace {

// Tokens per partial sum (docs/kernels.md). Products of up to 512 tokens have the same bits on any number of threads and in any row
// tile (onednn/product.cpp says how).
constexpr std::int64_t chunk = 512;

bool accepts(const Signature& s, bool add) {
  const DType g = add ? (s.n_inouts == 1 && s.n_outs == 0 ? s.inouts[0] : DType::u8) : (s.n_outs == 1 && s.n_inouts == 0 ? s.outs[0] : DType::u8);
  return s.n_ins == 2 && s.ins[0] == s.ins[1] && (s.ins[0] == DType::f32 || s.ins[0] == DType::bf16) && g == DType::f32;
}
bool accepts_store(const Signature& s) { return accepts(s, false); }
bool accepts_add(const Signature& s) { return accepts(s, true); }

// The product of `tokens` tokens: stored, or added to g.
onednn::Shape piece(const Call& call, const Operand& g, std::int64_t tokens, bool add) {
  const Operand &dy = call.in(0), &x = call.in(1);
  onednn::Shape s;
  s.m = g.dim[0];
  s.n = g.dim[1];
  s.k = tokens;
  s.ta = true;
  s.lda = dy.dim[1];
  s.ldb = x.dim[1];
  s.add = add;
  s.in = dy.dtype;
  s.out = DType::f32;
  return s;
}

void check(const Call& call, const Operand& g, bool add) {
  const Operand &dy = call.in(0), &x = call.in(1);
  const std::int64_t row = call.integer(0);
  if (dy.rank != 2 || x.rank != 2 || g.rank != 2 || dy.dim[0] != x.dim[0] || g.dim[1] != x.dim[1] || row < 0 || row + g.dim[0] > dy.dim[1]) {
    const auto spell = [](const Operand& o) { return "[" + std::to_string(o.dim[0]) + ", " + std::to_string(o.dim[1]) + "]"; };
    throw Error("ShapeError", std::string(add ? "weight_grad_add" : "weight_grad") + ": dy " + spell(dy) + ", x " + spell(x) + ", g " + spell(g) + " at row " + std::to_string(row) + " do not fit together");
  }
}

void run(const Call& call, const Operand& g, bool add) {
  check(call, g, add);
  const Operand &dy = call.in(0), &x = call.in(1);
  const std::int64_t tokens = dy.dim[0];
  if (g.count() == 0) return;
  if (tokens == 0) {
    if (!add) std::memset(g.data, 0, g.bytes());
    return;
  }
  const auto size = static_cast<std::int64_t>(size_of(dy.dtype));
  for (std::int64_t t = 0; t < tokens; t += chunk) {
    const auto* rows = dy.as<const char>() + (t * dy.dim[1] + call.integer(0)) * size;
    const auto* inputs = x.as<const char>() + t * x.dim[1] * size;
    call.context->products.get(piece(call, g, std::min(chunk, tokens - t), add || t > 0)).run(rows, inputs, nullptr, g.data, call.workspace);
  }
}

// Up to four products: the first chunk or a later one, whole or the short last one.
std::size_t workspace(const Call& call, const Operand& g, bool add) {
  check(call, g, add);
  const std::int64_t tokens = call.in(0).dim[0], rest = tokens % chunk;
  if (g.count() == 0 || tokens == 0) return 0;
  const auto need = [&](std::int64_t k, bool adds) { return call.context->products.get(piece(call, g, k, adds)).workspace(); };
  std::size_t bytes = need(std::min(chunk, tokens), add);
  if (tokens >= 2 * chunk) bytes = std::max(bytes, need(chunk, true));
  if (tokens > chunk && rest > 0) bytes = std::max(bytes, need(rest, true));
  return bytes;
}

void weight_grad(const Call& call) { run(call, call.out(0), false); }
void weight_grad_add(const Call& call) { run(call, call.inout(0), true); }
std::size_t weight_grad_workspace(const Call& call) { return workspace(call, call.out(0), false); }
std::size_t weight_grad_add_workspace(const Call& call) { return workspace(call, call.inout(0), true); }

}  // namespace

extern const Kernel kernels_weight_grad[] = {
    {"weight_grad", "row", accepts_store, weight_grad, weight_grad_workspace},
    {"weight_grad_add", "row", accepts_add, weight_grad_add, weight_grad_add_workspace},
    {},
};

}  // namespace lomo::LOMO_ISA
