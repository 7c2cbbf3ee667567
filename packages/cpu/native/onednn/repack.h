// Copies of matrices between dtypes and sizes, for products whose operands oneDNN cannot take as they lie.
#pragma once

#include <cstdint>

#include "lomo/kernel.h"

namespace lomo::onednn {

// A matrix in memory; elements from one row to the next may exceed its columns.
struct Matrix {
  std::int64_t rows, columns, stride;
};

// f32 and bf16, rounded to nearest even. Rows or columns `out` has beyond `in` repeat the last one; those it lacks are left out.
void repack(const void* from, DType from_type, const Matrix& in, void* to, DType to_type, const Matrix& out);

}  // namespace lomo::onednn
