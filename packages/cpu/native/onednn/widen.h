// f16 storage as f32, exactly: weights on their way into a product.
#pragma once

#include <cstdint>

namespace lomo::onednn {

// `rows` rows of `columns` f16 each, `stride` elements from one to the next, into a packed f32 matrix. Any number of threads.
void widen(const std::uint16_t* from, std::int64_t rows, std::int64_t columns, std::int64_t stride, float* to);

}  // namespace lomo::onednn
