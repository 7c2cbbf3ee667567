// token_sum: rows summed in token order, chunk by chunk, carried over launches; sums_value: the value of such a sum.
#include "token_sum.h"
#include "dispatch.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {
namespace {

void token_sum(const Call& call) {
  const Operand& x = call.in(0);
  const std::int64_t n = call.inout(0).last(), rows = n == 0 ? 0 : x.count() / n, start = call.integer(0);
  same_size("token_sum", "sums", call.inout(0).count(), 2 * n);
  same_size("token_sum", "x", x.count(), rows * n);
  float* sums = call.inout(0).as<float>();
  with_real(x.dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T* data = x.as<const T>();
    split(call, n, 64, rows * static_cast<std::int64_t>(sizeof(T)), [=](std::int64_t begin, std::int64_t end) {
      add_rows(sums, n, begin, end, start, 0, rows, [=](std::int64_t r, std::int64_t j, std::int64_t k) LOMO_ALWAYS { return load(data + r * n + j, k); });
    });
  });
}

void sums_value(const Call& call) {
  const std::int64_t n = call.out(0).count();
  same_size("sums_value", "sums", call.in(0).count(), 2 * n);
  const float* sums = call.in(0).as<const float>();
  float* v = call.out(0).as<float>();
  sweep(0, n, [=](std::int64_t i, std::int64_t k) LOMO_ALWAYS { store(v + i, load(sums + i, k) + load(sums + n + i, k), k); });
}

}  // namespace

extern const Kernel kernels_token_sum[];
const Kernel kernels_token_sum[] = {
    {"token_sum", "start", accepts<"r|f|">, token_sum, nullptr},
    {"sums_value", "", accepts<"f||f">, sums_value, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
