// update_sums: the rows' sums of an update made by somebody else. update_total: the rows one after the other, in double, into a group's sums.
#include "gate.h"
#include "row_sums.h"

namespace lomo::LOMO_ISA {
namespace {

void update_sums(const Call& call) {
  const std::int64_t k = call.in(0).last(), rows = call.in(0).rows();
  same_size("update_sums", "p", call.in(1).count(), rows * k);
  same_size("update_sums", "g", call.in(2).count(), rows * k);
  same_size("update_sums", "sums", call.out(0).count(), rows * row_width);
  const float* g = call.in(2).as<const float>();
  const float loss_scale = call.in(3).as<const float>()[at_loss_scale];
  float* sums = call.out(0).as<float>();
  with_storage(call.in(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T* before = call.in(0).as<const T>();
    const T* p = call.in(1).as<const T>();
    split(call, rows, 1, k * static_cast<std::int64_t>(4 + 2 * sizeof(T)), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        RowSums row;
        sweep(r * k, (r + 1) * k, [&](std::int64_t i, std::int64_t n) LOMO_ALWAYS {
          row.add<false>(load(before + i, n), f32x16(0.0f), load(p + i, n), load(g + i, n));
        });
        row.put(sums + r * row_width, loss_scale);
      }
    });
  });
}

// Each total is a double kept as the f32 nearest to it and the rest.
void update_total(const Call& call) {
  const std::int64_t rows = call.in(0).count() / row_width;
  same_size("update_total", "sums", call.in(0).count(), rows * row_width);
  same_size("update_total", "total", call.inout(0).count(), 2 * row_width);
  const float* sums = call.in(0).as<const float>();
  float* total = call.inout(0).as<float>();
  double sum[row_width];
  for (int c = 0; c < row_width; ++c) sum[c] = static_cast<double>(total[2 * c]) + static_cast<double>(total[2 * c + 1]);
  for (std::int64_t r = 0; r < rows; ++r)
    for (int c = 0; c < row_width; ++c) sum[c] += static_cast<double>(sums[r * row_width + c]);
  for (int c = 0; c < row_width; ++c) {
    total[2 * c] = static_cast<float>(sum[c]);
    total[2 * c + 1] = static_cast<float>(sum[c] - static_cast<double>(total[2 * c]));
  }
}

}  // namespace

extern const Kernel kernels_update_sums[];
const Kernel kernels_update_sums[] = {
    {"update_sums", "", accepts<"ppff||f">, update_sums, nullptr},
    {"update_total", "", accepts<"f|f|">, update_total, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
