// weight_grad and weight_grad_add: g = dy[:, row..]^T x, summed over tokens in chunks, ascending, in f32: a product a chunk, over tiles of
// rows that stay in L2 from one chunk to the next. Products begin at rows whose bytes are aligned, whatever tile was asked for, so that a
// row is always made by the same algorithm: rows before the first such one are made with those that precede them, aside.
#include "gpu/token_sum.h"

#if !defined(LOMO_DEVICE)
#include "addon/context.h"
#include "addon/launch.h"
#include "addon/resident.h"

namespace lomo {
namespace {

void check(const Call& call, const Operand& g, bool add) {
  const Operand &dy = call.in(0), &x = call.in(1);
  const std::int64_t row = call.integer(0);
  if (dy.rank == 2 && x.rank == 2 && g.rank == 2 && dy.dim[0] == x.dim[0] && g.dim[1] == x.dim[1] && row >= 0 && row + g.dim[0] <= dy.dim[1]) return;
  const auto spell = [](const Operand& o) { return "[" + std::to_string(o.dim[0]) + ", " + std::to_string(o.dim[1]) + "]"; };
  throw Error("ShapeError", std::string(add ? "weight_grad_add" : "weight_grad") + ": dy " + spell(dy) + ", x " + spell(x) + ", g " + spell(g) + " at row " + std::to_string(row) + " do not fit together");
}

// Rows `row` .. `row + rows` of the weight over `tokens` tokens.
Product product_of(const Operand& dy, const Operand& x, std::int64_t rows, std::int64_t tokens) {
  Product p;
  p.m = rows;
  p.n = x.dim[1];
  p.k = tokens;
  p.ta = true;
  p.lda = dy.dim[1];
  p.ldb = p.ldc = x.dim[1];
  p.in = dy.dtype;
  return p;
}

// Rows that 16 bytes of dy hold, or 1 where its rows of tokens are not aligned and no tile is.
std::int64_t aligned_rows(const Operand& dy) {
  const auto step = 16 / static_cast<std::int64_t>(size_of(dy.dtype));
  return dy.dim[1] % step == 0 ? step : 1;
}

// g (+)= rows `row`.. of the weight, chunk after chunk.
void sum(const Call& call, std::int64_t row, std::int64_t rows, void* g, bool add) {
  const Operand &dy = call.in(0), &x = call.in(1);
  const auto size = static_cast<std::int64_t>(size_of(dy.dtype));
  for (std::int64_t t = 0; t < dy.dim[0]; t += gpu::token_chunk) {
    const Product p = product_of(dy, x, rows, std::min(gpu::token_chunk, dy.dim[0] - t));
    call.context->products.run(p, {dy.as<const char>() + (t * dy.dim[1] + row) * size, x.as<const char>() + t * x.dim[1] * size, g, 1.0f, add || t > 0 ? 1.0f : 0.0f, call.workspace}, call.context->stream);
  }
}

void run(const Call& call, const Operand& g, bool add) {
  check(call, g, add);
  const Operand& dy = call.in(0);
  if (g.count() == 0) return;
  if (dy.dim[0] == 0) {
    if (!add) zero_on_device(call, g.data, g.bytes());
    return;
  }
  const std::int64_t row = call.integer(0), rows = g.dim[0], width = g.dim[1], step = aligned_rows(dy);
  const std::int64_t early = row % step, head = early == 0 ? 0 : std::min(rows, step - early);
  auto* to = g.as<char>();
  if (head > 0) {
    auto* aside = static_cast<char*>(call.workspace) + product_workspace;
    const auto bytes = static_cast<std::size_t>(head * width) * sizeof(float);
    auto* wanted = aside + early * width * static_cast<std::int64_t>(sizeof(float));
    if (add) {
      zero_on_device(call, aside, static_cast<std::size_t>((early + head) * width) * sizeof(float));
      copy_on_device(call, wanted, to, bytes);
    }
    sum(call, row - early, early + head, aside, add);
    copy_on_device(call, to, wanted, bytes);
  }
  // One chunk passes over g once: nothing to keep in L2.
  const std::int64_t tile = dy.dim[0] <= gpu::token_chunk ? rows : resident_rows(call.context->architecture, width);
  for (std::int64_t from = head; from < rows; from += tile) sum(call, row + from, std::min(tile, rows - from), to + from * width * static_cast<std::int64_t>(sizeof(float)), add);
}

// Where only the shapes are asked about, the products they mean are expected: whole chunks, and what is left of one.
std::size_t plan(const Call& call, const Operand& g) {
  const Operand &dy = call.in(0), &x = call.in(1);
  if (g.rank != 2 || dy.rank != 2 || x.rank != 2) return 0;  // the launch says what is wrong
  if (call.context != nullptr && dy.data == nullptr && g.count() > 0) {
    for (const std::int64_t tokens : {std::min(gpu::token_chunk, dy.dim[0]), dy.dim[0] % gpu::token_chunk}) {
      const Product p = product_of(dy, x, g.dim[0], tokens);
      if (tokens > 0) call.context->products.choices().expect({p, p.wide()});
    }
  }
  return product_workspace + (aligned_rows(dy) == 1 ? 0 : (static_cast<std::size_t>(aligned_rows(dy) * x.dim[1]) * sizeof(float) + 255) / 256 * 256);
}

void store(const Call& call) { run(call, call.out(0), false); }
void accumulate(const Call& call) { run(call, call.inout(0), true); }
std::size_t store_workspace(const Call& call) { return plan(call, call.out(0)); }
std::size_t accumulate_workspace(const Call& call) { return plan(call, call.inout(0)); }

}  // namespace

extern const Kernel kernels_weight_grad[] = {
    {"weight_grad", "row", accepts<"rr||f">, store, store_workspace},
    {"weight_grad_add", "row", accepts<"rr|f|">, accumulate, accumulate_workspace},
    {},
};

}  // namespace lomo
#endif
