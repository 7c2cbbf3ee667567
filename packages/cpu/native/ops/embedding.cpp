// embedding: rows of a table by id; embedding_grad_add: the gradient's rows added in token order to a row tile of it.
#include "dispatch.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {
namespace {

void embedding(const Call& call) {
  const Operand &ids = call.in(0), &w = call.in(1);
  const std::int64_t tokens = ids.count(), h = w.last(), vocabulary = w.rows();
  same_size("embedding", "y", call.out(0).count(), tokens * h);
  const std::int32_t* id = ids.as<const std::int32_t>();
  for (std::int64_t t = 0; t < tokens; ++t)
    LOMO_REQUIRE(id[t] >= 0 && id[t] < vocabulary, "BadId", "embedding: id %d at token %lld is outside [0, %lld); does the tokenizer belong to this model?", id[t],
                 static_cast<long long>(t), static_cast<long long>(vocabulary));
  const std::int64_t bytes = h * static_cast<std::int64_t>(size_of(w.dtype));
  const char* table = w.as<const char>();
  char* y = call.out(0).as<char>();
  split(call, tokens, 1, 2 * bytes, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) std::memcpy(y + t * bytes, table + id[t] * bytes, static_cast<std::size_t>(bytes));
  });
}

void embedding_grad_add(const Call& call) {
  const std::int64_t tokens = call.in(0).count(), h = call.inout(0).last(), rows = call.inout(0).rows(), row = call.integer(0);
  same_size("embedding_grad_add", "dy", call.in(1).count(), tokens * h);
  const std::int32_t* id = call.in(0).as<const std::int32_t>();
  float* g = call.inout(0).as<float>();
  with_real(call.in(1).dtype, [&](auto* type) {
    using T = pointee<decltype(type)>;
    const T* dy = call.in(1).as<const T>();
    // Columns over the threads: every row's terms stay in token order.
    split(call, h, 64, tokens * static_cast<std::int64_t>(sizeof(T) + 8), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        const std::int64_t r = id[t] - row;
        if (r < 0 || r >= rows) continue;
        float* to = g + r * h;
        const T* from = dy + t * h;
        sweep(begin, end, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS { store(to + j, load(to + j, n) + load(from + j, n), n); });
      }
    });
  });
}

}  // namespace

extern const Kernel kernels_embedding[];
const Kernel kernels_embedding[] = {
    {"embedding", "", accepts<"ir||r">, embedding, nullptr},
    {"embedding_grad_add", "row", accepts<"ir|f|">, embedding_grad_add, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
