// weight_grad and weight_grad_add: g = dy[:, row..]^T x, summed over tokens in chunks of 512, ascending, in f32; one product a chunk.
#include "gpu/token_sum.h"

#if !defined(LOMO_DEVICE)
#include "addon/context.h"
#include "addon/launch.h"

namespace lomo {
namespace {

void check(const Call& call, const Operand& g, bool add) {
  const Operand &dy = call.in(0), &x = call.in(1);
  const std::int64_t row = call.integer(0);
  if (dy.rank == 2 && x.rank == 2 && g.rank == 2 && dy.dim[0] == x.dim[0] && g.dim[1] == x.dim[1] && row >= 0 && row + g.dim[0] <= dy.dim[1]) return;
  const auto spell = [](const Operand& o) { return "[" + std::to_string(o.dim[0]) + ", " + std::to_string(o.dim[1]) + "]"; };
  throw Error("ShapeError", std::string(add ? "weight_grad_add" : "weight_grad") + ": dy " + spell(dy) + ", x " + spell(x) + ", g " + spell(g) + " at row " + std::to_string(row) + " do not fit together");
}

void run(const Call& call, const Operand& g, bool add) {
  check(call, g, add);
  const Operand &dy = call.in(0), &x = call.in(1);
  const std::int64_t tokens = dy.dim[0];
  if (g.count() == 0) return;
  if (tokens == 0) {
    if (!add) zero_on_device(call, g.data, g.bytes());
    return;
  }
  const auto size = static_cast<std::int64_t>(size_of(dy.dtype));
  for (std::int64_t t = 0; t < tokens; t += gpu::token_chunk) {
    Product p;
    p.m = g.dim[0];
    p.n = g.dim[1];
    p.k = std::min(gpu::token_chunk, tokens - t);
    p.ta = true;
    p.lda = dy.dim[1];
    p.ldb = p.ldc = x.dim[1];
    p.in = dy.dtype;
    const auto* rows = dy.as<const char>() + (t * dy.dim[1] + call.integer(0)) * size;
    const auto* inputs = x.as<const char>() + t * x.dim[1] * size;
    call.context->products.run(p, {rows, inputs, g.data, 1.0f, add || t > 0 ? 1.0f : 0.0f, call.workspace, product_workspace(p.m, p.n)}, call.context->stream);
  }
}

void store(const Call& call) { run(call, call.out(0), false); }
void accumulate(const Call& call) { run(call, call.inout(0), true); }
std::size_t bytes(const Operand& g) { return g.rank == 2 ? product_workspace(g.dim[0], g.dim[1]) : 0; }
std::size_t store_workspace(const Call& call) { return bytes(call.out(0)); }
std::size_t accumulate_workspace(const Call& call) { return bytes(call.inout(0)); }

}  // namespace

extern const Kernel kernels_weight_grad[] = {
    {"weight_grad", "row", accepts<"rr||f">, store, store_workspace},
    {"weight_grad_add", "row", accepts<"rr|f|">, accumulate, accumulate_workspace},
    {},
};

}  // namespace lomo
#endif
