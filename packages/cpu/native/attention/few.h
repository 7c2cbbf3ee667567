// Attention forward for segments of few query rows, as in decoding: head_dim in vector lanes, keys and values read once where they lie.
#pragma once

#include <cmath>
#include <limits>

#include "rows.h"

namespace lomo::LOMO_ISA {

template <class T> struct ForwardData {
  const T *q, *k, *v;
  T* o;
  float* lse;
};

// log-sum-exp and the factor of a row's sums, from the exponent subtracted (in powers of two) and the mass; a row that saw nothing has none.
inline float lse_of(float base, float mass) { return mass == 0 ? -std::numeric_limits<float>::infinity() : base * 0.693147181f + std::log(mass); }
inline float inverse_mass(float mass) { return mass == 0 ? 0 : 1 / mass; }

// Up to this many rows in a segment and group, lanes full of rows would stand empty.
constexpr std::int64_t few_rows = 8;

// Scores of keys begin .. end for one packed row q, sixteen at a time: products of each key are kept as vectors, turned and added.
template <class T> void few_scores(const Attention& a, const RowBlock& rows, const float* q, const T* k, std::int64_t begin, std::int64_t end, float* scores) {
  alignas(64) float partial[lanes * lanes], turned[lanes * lanes];
  for (std::int64_t at = begin; at < end; at += lanes) {
    for (std::int64_t i = 0; i < lanes; ++i) {
      f32x16 product(0.0f);
      if (at + i < end) {
        const T* key = k + a.key(rows.segment.k + at + i, rows.group);
        std::int64_t j = 0;
        for (; j + lanes <= a.dim; j += lanes) product = fma(load(q + j), load(key + j), product);
        if (j < a.dim) product = fma(load(q + j), load(key + j, a.dim - j), product);
      }
      store(partial + i * lanes, product);
    }
    transpose(lanes, lanes, partial, lanes, turned, lanes);
    f32x16 score = load(turned);
    for (int i = 1; i < lanes; ++i) score += load(turned + i * lanes);
    store(scores + (at - begin), score);
  }
}

// Sums of keys begin .. end by their weights p, added to o [padded] times fade.
template <class T> void few_sums(const Attention& a, const RowBlock& rows, const float* p, const T* v, std::int64_t begin, std::int64_t end, float fade, float* o) {
  constexpr std::int64_t step = 4 * lanes;
  const std::int64_t stride = a.groups * a.dim;
  const T* first = v + a.key(rows.segment.k + begin, rows.group);
  std::int64_t j = 0;
  for (; j + step <= a.dim; j += step) {
    f32x16 sum[4];
    for (int u = 0; u < 4; ++u) sum[u] = load(o + j + u * lanes) * fade;
    const T* value = first + j;
    for (std::int64_t i = 0; i < end - begin; ++i, value += stride)
      for (int u = 0; u < 4; ++u) sum[u] = fma(f32x16(p[i]), load(value + u * lanes), sum[u]);
    for (int u = 0; u < 4; ++u) store(o + j + u * lanes, sum[u]);
  }
  for (; j < a.dim; j += lanes) {
    f32x16 sum = load(o + j) * fade;
    for (std::int64_t i = 0; i < end - begin; ++i) sum = fma(f32x16(p[i]), load(first + i * stride + j, row_left(a, j)), sum);
    store(o + j, sum);
  }
}

// `rows`, at most few_rows of them, over all their keys. Works in scores [64] and packed [32, padded].
template <class T> void attend_few(const Attention& a, const RowBlock& rows, const ForwardData<T>& x, float* scores, float* packed) {
  const Slope slope = slope_of(a.scale);
  const f32x16 nothing(-std::numeric_limits<float>::infinity()), steepness(slope.steepness);
  Sight sight;
  look(a, rows, sight);
  pack_rows(a, rows, x.q, slope.sign, packed);
  float* o = packed + lanes * a.padded;
  float top[few_rows], base[few_rows], mass[few_rows];
  for (std::int64_t r = 0; r < rows.count; ++r) {
    top[r] = -std::numeric_limits<float>::infinity();
    base[r] = mass[r] = 0;
    for (std::int64_t j = 0; j < a.padded; j += lanes) store(o + r * a.padded + j, f32x16(0.0f));
  }
  const std::int64_t last = sight.high[rows.count - 1] + 1;
  for (std::int64_t begin = sight.low[0] / block_keys * block_keys; begin < last; begin += block_keys) {
    const std::int64_t end = smaller(rows.segment.keys, begin + block_keys);
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::int64_t from = larger<std::int64_t>(begin, sight.low[r]), to = smaller<std::int64_t>(end, sight.high[r] + 1);
      if (from >= to) continue;
      few_scores(a, rows, packed + r * a.padded, x.k, from, to, scores);
      f32x16 highest(top[r]);
      for (std::int64_t i = 0; i < to - from; i += lanes) {
        const f32x16 s = select(lane_index() < static_cast<std::int32_t>(to - from - i), load(scores + i), nothing);
        store(scores + i, s);
        highest = max(s, highest);
      }
      const float before = top[r];
      top[r] = largest(highest);
      base[r] = top[r] == -std::numeric_limits<float>::infinity() ? 0 : top[r] * slope.steepness;
      f32x16 added(0.0f);
      for (std::int64_t i = 0; i < to - from; i += lanes) {
        const f32x16 p = exp2_small(fma(load(scores + i), steepness, f32x16(-base[r])));
        store(scores + i, p);
        added += p;
      }
      const float fade = exp2_small(fma(f32x16(before), steepness, f32x16(-base[r])))[0];
      mass[r] = mass[r] * fade + sum(added);
      few_sums(a, rows, scores, x.v, from, to, fade, o + r * a.padded);
    }
  }
  for (std::int64_t r = 0; r < rows.count; ++r) {
    x.lse[rows.head(a, r) * a.tokens + rows.token(a, r)] = lse_of(base[r], mass[r]);
    mass[r] = inverse_mass(mass[r]);
  }
  unpack_rows(a, rows, o, mass, x.o);
}

}  // namespace lomo::LOMO_ISA
