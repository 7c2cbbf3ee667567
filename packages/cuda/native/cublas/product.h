// A matrix product: its shape, the class of products that share an algorithm, the scratch it may use.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "lomo/kernel.h"

namespace lomo {

// c [m, n] = alpha op(a) op(b) + beta c, all row-major; the strides are those between rows. a and b are `in`; c is f32, or `in`.
struct Product {
  std::int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldc = 0;
  bool ta = false, tb = false;
  DType in = DType::f32, out = DType::f32;
  bool operator==(const Product&) const = default;

  // Whether every row of a, b and c begins at a multiple of 16 bytes where the first one does.
  bool wide() const {
    const auto even = [](std::int64_t stride, DType t) { return stride * static_cast<std::int64_t>(size_of(t)) % 16 == 0; };
    return even(lda, in) && even(ldb, in) && even(ldc, out);
  }
};

// What decides which algorithm multiplies. The number of rows m is not part of it, nor what depends on m: a row of c is the same sum,
// in the same order, in however many rows it is asked for.
struct ProductClass {
  std::int64_t n = 0, k = 0, ldb = 0;
  bool ta = false, tb = false;
  DType in = DType::f32, out = DType::f32;
  bool wide = false;  // 16-byte aligned, all of it; else by elements
  bool operator==(const ProductClass&) const = default;

  ProductClass() = default;
  ProductClass(const Product& p, bool aligned) : n(p.n), k(p.k), ldb(p.ldb), ta(p.ta), tb(p.tb), in(p.in), out(p.out), wide(aligned) {}

  // The product of this class that algorithms are asked and measured for, with `rows` rows.
  Product with(std::int64_t rows) const {
    Product p;
    p.m = rows;
    p.n = n;
    p.k = k;
    p.lda = ta ? rows : k;
    // Strides that fit the alignment, as those of the products that are run.
    const std::int64_t step = 16 / static_cast<std::int64_t>(size_of(in));
    if (wide) p.lda = (p.lda + step - 1) / step * step;
    p.ldb = ldb;
    p.ldc = n;
    p.ta = ta;
    p.tb = tb;
    p.in = in;
    p.out = out;
    return p;
  }

  // 'n 4096 k 1024 ldb 4096 ta bf16 -> f32 by 16': names the class in what is recorded.
  std::string spell() const;
};

// Bytes of scratch of every product: no shape needs more, since no algorithm that splits k is used, and so plans need no GPU.
constexpr std::size_t product_workspace = std::size_t{4} << 20;

}  // namespace lomo
