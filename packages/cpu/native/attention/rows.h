// One block of query rows beside one block of keys: packing to units, what each row sees, and the runs of keys worth computing.
#pragma once

#include "segments.h"
#include "tile.h"

namespace lomo::LOMO_ISA {

// Rows first .. first + count of a segment and group; lane i of every transposed block is row first + i.
struct RowBlock {
  Segment segment;
  std::int64_t group, first, count;
  std::int64_t vectors;  // 16-lane vectors that hold a row

  std::int64_t token(const Attention& a, std::int64_t i) const { return segment.q + (first + i) / a.heads_per_group; }
  std::int64_t head(const Attention& a, std::int64_t i) const { return group * a.heads_per_group + (first + i) % a.heads_per_group; }
};
inline std::int64_t row_blocks(const Attention& a, const Segment& segment) { return ceil_div(segment.queries * a.heads_per_group, block_rows); }
inline RowBlock row_block(const Attention& a, const Segment& segment, std::int64_t group, std::int64_t index) {
  const std::int64_t first = index * block_rows;
  const std::int64_t count = smaller(block_rows, segment.queries * a.heads_per_group - first);
  return {segment, group, first, count, ceil_div(count, lanes)};
}

// Elements of a vector at j that belong to the row.
LOMO_INLINE std::int64_t row_left(const Attention& a, std::int64_t j) { return smaller<std::int64_t>(lanes, a.dim - j); }

// Rows of x [tokens, heads, dim] as units [16 vectors, padded / per], times `factor`; what lies beyond a row or the last row is 0.
template <class U, class T> void pack_rows(const Attention& a, const RowBlock& rows, const T* x, float factor, U* to) {
  for (std::int64_t i = 0; i < rows.vectors * lanes; ++i, to += a.padded / per<U>) {
    if (i >= rows.count) clear_row(a.padded, to);
    else copy_row(x + a.query(rows.token(a, i), rows.head(a, i)), a.dim, a.padded, factor, to);
  }
}
// The way back: rows [count, padded] times factor[row], rounded into x.
template <class T> void unpack_rows(const Attention& a, const RowBlock& rows, const float* from, const float* factor, T* x) {
  for (std::int64_t i = 0; i < rows.count; ++i, from += a.padded) {
    T* to = x + a.query(rows.token(a, i), rows.head(a, i));
    for (std::int64_t j = 0; j < a.dim; j += lanes) store(to + j, load(from + j) * factor[i], row_left(a, j));
  }
}
// Rows begin .. end of one segment and group of x [keys, groups, dim] as units [end - begin, padded / per].
template <class U, class T> void pack_keys(const Attention& a, const Segment& segment, std::int64_t group, const T* x, std::int64_t begin, std::int64_t end, U* to) {
  for (std::int64_t i = begin; i < end; ++i, to += a.padded / per<U>) copy_row(x + a.key(segment.k + i, group), a.dim, a.padded, 1.0f, to);
}

// The same with units along keys, [(end - begin) / per rounded up, padded]; works in `space` [64, padded] floats.
template <class U, class T>
void pack_key_units(const Attention& a, const Segment& segment, std::int64_t group, const T* x, std::int64_t begin, std::int64_t end, float* space, U* to) {
  if constexpr (per<U> == 1) {
    pack_keys(a, segment, group, x, begin, end, to);
  } else {
    pack_keys(a, segment, group, x, begin, end, reinterpret_cast<U*>(space));
    pair_rows(end - begin, a.padded, reinterpret_cast<const U*>(space), to);
  }
}

// Rows of x with units along rows in `to` and along dim in `to_t`; works in `space` [64, padded] floats.
template <class U, class T> void turn_rows(const Attention& a, const RowBlock& rows, const T* x, float* space, U* to, U* to_t) {
  const std::int64_t n = rows.vectors * lanes, length = a.padded / per<U>;
  if constexpr (per<U> == 1) {
    pack_rows(a, rows, x, 1.0f, to);
    transpose(n, length, to, length, to_t, block_rows);
  } else {
    U* packed = reinterpret_cast<U*>(space);
    pack_rows(a, rows, x, 1.0f, packed);
    transpose(n, length, packed, length, to_t, block_rows);
    pair_rows(n, a.padded, packed, to);
  }
}

// Rows of x outside first .. end become 0: those of no segment.
template <class T> void clear_outside(T* x, std::int64_t row, std::int64_t rows, std::int64_t first, std::int64_t end) {
  if (first > 0) std::memset(static_cast<void*>(x), 0, static_cast<std::size_t>(first * row) * sizeof(T));
  if (end < rows) std::memset(static_cast<void*>(x + end * row), 0, static_cast<std::size_t>((rows - end) * row) * sizeof(T));
}

// Row i sees keys low[i] .. high[i], both included; both ascend with i. Lanes beyond the last row repeat it.
struct Sight {
  std::int32_t low[block_rows], high[block_rows];

  bool sees(std::int64_t vector, std::int64_t begin, std::int64_t end) const { return high[vector * lanes + lanes - 1] >= begin && low[vector * lanes] < end; }
  bool sees_all(std::int64_t vector, std::int64_t begin, std::int64_t end) const { return high[vector * lanes] >= end - 1 && low[vector * lanes + lanes - 1] <= begin; }
  mask16 of(std::int64_t vector, std::int64_t key) const {
    const i32x16 j(static_cast<std::int32_t>(key));
    return (j >= load(low + vector * lanes)) & (j <= load(high + vector * lanes));
  }
};
inline void look(const Attention& a, const RowBlock& rows, Sight& sight) {
  for (std::int64_t i = 0; i < rows.vectors * lanes; ++i) {
    const std::int64_t query = (rows.first + smaller(i, rows.count - 1)) / a.heads_per_group;
    const std::int64_t end = query + rows.segment.keys - rows.segment.queries;  // aligned to the end
    const std::int64_t high = a.causal ? smaller(end, rows.segment.keys - 1) : rows.segment.keys - 1;
    const std::int64_t low = a.window > 0 ? larger<std::int64_t>(0, end - a.window + 1) : 0;
    sight.low[i] = static_cast<std::int32_t>(low);
    sight.high[i] = static_cast<std::int32_t>(larger<std::int64_t>(high, -1));
  }
}

// Keys begin .. end of a block, all seen by some row of vectors first .. last.
struct Run { std::int64_t begin, end, first, last; };
struct Runs {
  Run run[block_keys / chunk_keys];
  int count = 0;
};
// Only what someone sees: chunks of 16 keys by vectors of 16 rows, neighbouring chunks with the same rows joined.
inline Runs runs_of(const RowBlock& rows, const Sight& sight, std::int64_t begin, std::int64_t end) {
  Runs runs;
  for (std::int64_t j = begin; j < end;) {
    const std::int64_t next = smaller(end, (j / chunk_keys + 1) * chunk_keys);
    std::int64_t first = 0, last = rows.vectors;
    while (first < last && !sight.sees(first, j, next)) ++first;
    while (first < last && !sight.sees(last - 1, j, next)) --last;
    if (first < last) {
      Run* previous = runs.count > 0 ? &runs.run[runs.count - 1] : nullptr;
      if (previous != nullptr && previous->end == j && previous->first == first && previous->last == last) previous->end = next;
      else runs.run[runs.count++] = {j, next, first, last};
    }
    j = next;
  }
  return runs;
}

// 2^x for x <= 127, to about one unit in the last place; 0 below 2^-126.5, NaN stays NaN.
LOMO_INLINE f32x16 exp2_small(const f32x16& a) {
  const f32x16 x = select(a < -127.0f, f32x16(-127.0f), a);
  const float magic = 12582912.0f + 127.0f;  // leaves the rounded x as a biased exponent in the low bits
  const f32x16 shifted = x + magic;
  const f32x16 f = x - (shifted - magic);
  f32x16 p = f32x16(0.000154531634f);
  p = fma(p, f, f32x16(0.00133908633f));
  p = fma(p, f, f32x16(0.00961808302f));
  p = fma(p, f, f32x16(0.0555035695f));
  p = fma(p, f, f32x16(0.240226507f));
  p = fma(p, f, f32x16(0.693147182f));
  p = fma(p, f, f32x16(1.0f));
  return p * bits<float>(bits<std::int32_t>(shifted) << 23);
}

// softmax(scale s) in powers of two: s is computed with q times `sign`, and `steepness` is positive, so masked scores may be -inf.
struct Slope { float sign, steepness; };
inline Slope slope_of(double scale) {
  if (scale == 0) return {0, 1};
  return {scale < 0 ? -1.0f : 1.0f, static_cast<float>((scale < 0 ? -scale : scale) * 1.4426950408889634)};
}

}  // namespace lomo::LOMO_ISA
