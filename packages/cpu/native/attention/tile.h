// Small matrix products on packed blocks: C (+)= A B with C's columns in vector lanes and A broadcast unit by unit.
// Each element of C adds its k units one after another in ascending order, so its bits depend on nothing but its row and column.
#pragma once

#include "unit.h"

namespace lomo::LOMO_ISA {

using lane = native<float>;
constexpr int width = register_bytes / 4;

#if defined(__AVX512F__)
constexpr int tile_columns = 4;  // registers of columns: 6 x 4 sums and 4 columns of B leave 4 of 32 registers
#else
constexpr int tile_columns = 2;  // 6 x 2 sums, 2 columns of B, 1 element of A: 15 of 16 registers
#endif
constexpr int tile_rows = 6;

LOMO_INLINE lane fused(lane a, lane b, lane c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__) && defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
#if defined(__AVX512BF16__)
LOMO_INLINE lane fused(native<pair> a, native<pair> b, lane c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
#endif
template <class U> LOMO_INLINE native<U> load_lane(const U* p) {
  native<U> r;
  std::memcpy(&r, p, sizeof r);
  return r;
}
template <class U> LOMO_INLINE void store_lane(U* p, native<U> a) { std::memcpy(p, &a, sizeof a); }

// Where the sums begin: at 0, at C, or at C times `factor` of its column.
enum class Begin { zero, sum, scaled };

// How A is stored: element (i, s) at a[i * stride + s], or at a[s * stride + i].
enum class Stored { rows, columns };

template <class U> struct Factors { const U* a; std::int64_t a_stride; const U* b; std::int64_t b_stride; };
struct Sums { float* c; std::int64_t stride; Begin begin; const float* factor; };

template <int rows, int columns, Stored stored, class U>
void tile(std::int64_t k, const Factors<U>& f, const Sums& out) {
  lane sum[rows][columns];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < columns; ++j) {
      const float* c = out.c + i * out.stride + j * width;
      if (out.begin == Begin::zero) sum[i][j] = lane{};
      else if (out.begin == Begin::sum) sum[i][j] = load_lane(c);
      else sum[i][j] = load_lane(c) * load_lane(out.factor + j * width);
    }
  const U* a = f.a;
  const U* b = f.b;
  const std::int64_t a_stride = f.a_stride, b_stride = f.b_stride;
  for (std::int64_t s = 0; s < k; ++s) {
    native<U> column[columns];
#pragma GCC unroll 8
    for (int j = 0; j < columns; ++j) column[j] = load_lane(b + j * width);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const native<U> x = (stored == Stored::rows ? a[i * a_stride] : a[i]) - native<U>{};
#pragma GCC unroll 8
      for (int j = 0; j < columns; ++j) sum[i][j] = fused(x, column[j], sum[i][j]);
    }
    a += stored == Stored::rows ? 1 : a_stride;
    b += b_stride;
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < columns; ++j) store_lane(out.c + i * out.stride + j * width, sum[i][j]);
}

template <int rows, Stored stored, class U>
void tile_row(std::int64_t n, std::int64_t k, Factors<U> f, Sums out) {
  for (std::int64_t left = n / width; left > 0;) {
    const int columns = left >= tile_columns ? tile_columns : static_cast<int>(left);
    if (columns == 1) tile<rows, 1, stored>(k, f, out);
    if (columns == 2) tile<rows, 2, stored>(k, f, out);
    if constexpr (tile_columns > 2) {
      if (columns == 3) tile<rows, 3, stored>(k, f, out);
      if (columns == 4) tile<rows, 4, stored>(k, f, out);
    }
    f.b += columns * width;
    out.c += columns * width;
    if (out.begin == Begin::scaled) out.factor += columns * width;
    left -= columns;
  }
}

// C [m, n] from A [m, k] and B [k, n], k counted in units; n is a multiple of `width`, and out.factor is read only when scaled.
template <Stored stored, class U>
inline void product(std::int64_t m, std::int64_t n, std::int64_t k, Factors<U> f, Sums out) {
  const std::int64_t step = stored == Stored::rows ? f.a_stride : 1;
  for (std::int64_t i = 0; i < m;) {
    const std::int64_t left = m - i;
    const int rows = left >= tile_rows ? tile_rows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    if (rows == tile_rows) tile_row<tile_rows, stored>(n, k, f, out);
    else if (rows == 4) tile_row<4, stored>(n, k, f, out);
    else if (rows == 2) tile_row<2, stored>(n, k, f, out);
    else tile_row<1, stored>(n, k, f, out);
    f.a += rows * step;
    out.c += rows * out.stride;
    i += rows;
  }
}

// to[j][i] = from[i][j] for i < rows, j < columns; both multiples of 16.
template <class U> inline void transpose(std::int64_t rows, std::int64_t columns, const U* from, std::int64_t from_stride, U* to, std::int64_t to_stride) {
  for (std::int64_t i = 0; i < rows; i += width)
    for (std::int64_t j = 0; j < columns; j += width) {
      native<U> x[width];
#pragma GCC unroll 16
      for (int a = 0; a < width; ++a) x[a] = load_lane(from + (i + a) * from_stride + j);
#pragma GCC unroll 4
      for (int half = width / 2; half > 0; half /= 2) {
        native<std::int32_t> low{}, high{};
#pragma GCC unroll 16
        for (int l = 0; l < width; ++l) {
          low[l] = (l & half) == 0 ? l : width + l - half;
          high[l] = (l & half) == 0 ? l + half : width + l;
        }
#pragma GCC unroll 16
        for (int a = 0; a < width; ++a)
          if ((a & half) == 0) {
            const native<U> p = x[a], q = x[a + half];
            x[a] = __builtin_shuffle(p, q, low);
            x[a + half] = __builtin_shuffle(p, q, high);
          }
      }
#pragma GCC unroll 16
      for (int a = 0; a < width; ++a) store_lane(to + (j + a) * to_stride + i, x[a]);
    }
}

}  // namespace lomo::LOMO_ISA
