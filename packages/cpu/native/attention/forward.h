// Attention forward: blocks of 64 query rows in vector lanes pass over blocks of 64 keys with a running maximum and sum.
#pragma once

#include <cmath>
#include <limits>

#include <omp.h>

#include "rows.h"

namespace lomo::LOMO_ISA {

// What one thread works in. Blocks called _t have rows in their lanes.
struct ForwardSpace {
  float* rows;     // [64, padded]
  float* q_t;      // [padded, 64]
  float* o_t;      // [padded, 64]
  float* k;        // [64, padded]
  float* v;        // [64, padded]
  float* s_t;      // [keys 64, 64]
  float *top, *base, *mass, *fade;  // [64]: running maximum, the exponent subtracted, running sum, factor of older sums
  Sight* sight;
};
inline ForwardSpace forward_space(const Attention& a, Cutter& cut) {
  const std::int64_t block = block_rows * a.padded;
  return {cut.take<float>(block), cut.take<float>(block), cut.take<float>(block), cut.take<float>(block), cut.take<float>(block), cut.take<float>(block_keys * block_rows),
          cut.take<float>(block_rows), cut.take<float>(block_rows), cut.take<float>(block_rows), cut.take<float>(block_rows), cut.take<Sight>(1)};
}

// Scores of keys [begin, end) become weights relative to the new maximum; top, base, mass and fade follow.
inline void weigh(const ForwardSpace& w, const Runs& runs, std::int64_t begin, std::int64_t vectors, float steepness) {
  const f32x16 nothing(-std::numeric_limits<float>::infinity());
  for (std::int64_t v = 0; v < vectors; ++v) {
    float* s = w.s_t + v * lanes;
    const f32x16 before = load(w.top + v * lanes);
    f32x16 top = before;
    for (int r = 0; r < runs.count; ++r) {
      const Run& run = runs.run[r];
      if (v < run.first || v >= run.last) continue;
      if (w.sight->sees_all(v, run.begin, run.end)) {
        for (std::int64_t j = run.begin; j < run.end; ++j) top = max(load(s + (j - begin) * block_rows), top);
        continue;
      }
      for (std::int64_t j = run.begin; j < run.end; ++j) {
        const f32x16 x = select(w.sight->of(v, j), load(s + (j - begin) * block_rows), nothing);
        store(s + (j - begin) * block_rows, x);
        top = max(x, top);
      }
    }
    const f32x16 base = select(top == nothing, f32x16(0.0f), top) * steepness;
    const f32x16 slope(steepness);
    f32x16 mass(0.0f);
    for (int r = 0; r < runs.count; ++r) {
      const Run& run = runs.run[r];
      if (v < run.first || v >= run.last) continue;
      for (std::int64_t j = run.begin; j < run.end; ++j) {
        const f32x16 p = exp2_small(fma(load(s + (j - begin) * block_rows), slope, -base));
        store(s + (j - begin) * block_rows, p);
        mass += p;
      }
    }
    const f32x16 fade = exp2_small(fma(before, slope, -base));
    store(w.top + v * lanes, top);
    store(w.base + v * lanes, base);
    store(w.fade + v * lanes, fade);
    store(w.mass + v * lanes, fma(load(w.mass + v * lanes), fade, mass));
  }
}

template <class T> void attend(const Attention& a, const RowBlock& rows, const ForwardSpace& w, const T* q, const T* k, const T* v, T* o, float* lse) {
  const std::int64_t n = rows.vectors * lanes;
  const Slope slope = slope_of(a.scale);
  pack_rows(a, rows, q, slope.sign, w.rows);
  transpose(n, a.padded, w.rows, a.padded, w.q_t, block_rows);
  look(a, rows, *w.sight);
  for (std::int64_t i = 0; i < n; i += lanes) {
    store(w.top + i, f32x16(-std::numeric_limits<float>::infinity()));
    store(w.base + i, f32x16(0.0f));
    store(w.mass + i, f32x16(0.0f));
  }
  for (std::int64_t j = 0; j < a.padded; ++j)
    for (std::int64_t i = 0; i < n; i += lanes) store(w.o_t + j * block_rows + i, f32x16(0.0f));

  const std::int64_t last = w.sight->high[n - 1] + 1;
  for (std::int64_t begin = w.sight->low[0]; begin < last;) {
    const std::int64_t end = smaller(last, (begin / block_keys + 1) * block_keys);
    const Runs runs = runs_of(rows, *w.sight, begin, end);
    pack_keys(a, rows, k, begin, end, w.k);
    for (int r = 0; r < runs.count; ++r) {
      const Run& run = runs.run[r];
      const std::int64_t at = run.begin - begin, lane0 = run.first * lanes;
      product<Stored::rows>(run.end - run.begin, (run.last - run.first) * lanes, a.dim, {w.k + at * a.padded, a.padded, w.q_t + lane0, block_rows},
                            {w.s_t + at * block_rows + lane0, block_rows, Begin::zero, nullptr});
    }
    weigh(w, runs, begin, rows.vectors, slope.steepness);
    pack_keys(a, rows, v, begin, end, w.v);
    const bool whole = runs.count == 1 && runs.run[0].first == 0 && runs.run[0].last == rows.vectors;
    if (!whole)
      for (std::int64_t j = 0; j < a.dim; ++j)
        for (std::int64_t i = 0; i < n; i += lanes) store(w.o_t + j * block_rows + i, load(w.o_t + j * block_rows + i) * load(w.fade + i));
    for (int r = 0; r < runs.count; ++r) {
      const Run& run = runs.run[r];
      const std::int64_t at = run.begin - begin, lane0 = run.first * lanes;
      product<Stored::columns>(a.dim, (run.last - run.first) * lanes, run.end - run.begin, {w.v + at * a.padded, a.padded, w.s_t + at * block_rows + lane0, block_rows},
                               {w.o_t + lane0, block_rows, whole ? Begin::scaled : Begin::sum, w.fade + lane0});
    }
    begin = end;
  }

  transpose(a.padded, n, w.o_t, block_rows, w.rows, a.padded);
  for (std::int64_t i = 0; i < rows.count; ++i) {
    const float mass = w.mass[i];
    float* out = lse + rows.head(a, i) * a.tokens + rows.token(a, i);
    *out = mass == 0 ? -std::numeric_limits<float>::infinity() : w.base[i] * 0.693147181f + std::log(mass);
    w.fade[i] = mass == 0 ? 0 : 1 / mass;
  }
  unpack_rows(a, rows, w.rows, w.fade, o);
}

inline std::size_t attention_workspace(const Call& call) {
  const Attention a = attention_of("attention", call);
  Cutter cut(nullptr);
  forward_space(a, cut);
  return blocks_bytes(a) + cut.used() * static_cast<std::size_t>(larger(1, call.threads));
}

inline void attention(const Call& call) {
  const Attention a = attention_of("attention", call);
  same_size(a.op, "o", call.out(0).count(), call.in(0).count());
  same_size(a.op, "lse", call.out(1).count(), a.tokens * a.heads);
  const Blocks blocks = blocks_of(a, call.workspace);
  char* spaces = static_cast<char*>(call.workspace) + blocks_bytes(a);
  with_real(call.in(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const T *q = call.in(0).as<const T>(), *k = call.in(1).as<const T>(), *v = call.in(2).as<const T>();
    T* o = call.out(0).as<T>();
    float* lse = call.out(1).as<float>();
    const std::int64_t first = a.segments > 0 ? a.cu_q[0] : 0, end = a.segments > 0 ? a.cu_q[a.segments] : 0;
    clear_outside(o, a.heads * a.dim, a.tokens, first, end);
    for (std::int64_t h = 0; h < a.heads; ++h)
      for (std::int64_t i = 0; i < a.tokens; ++i)
        if (i < first || i >= end) lse[h * a.tokens + i] = -std::numeric_limits<float>::infinity();
    const std::int64_t tasks = blocks.rows[a.segments] * a.groups;
    const int threads = static_cast<int>(smaller<std::int64_t>(larger(1, call.threads), larger<std::int64_t>(1, tasks)));
#pragma omp parallel num_threads(threads)
    {
      Cutter count(nullptr);
      forward_space(a, count);
      Cutter cut(spaces + count.used() * static_cast<std::size_t>(omp_get_thread_num()));
      const ForwardSpace space = forward_space(a, cut);
#pragma omp for schedule(dynamic, 1)
      for (std::int64_t task = 0; task < tasks; ++task) {
        const std::int64_t from_end = tasks - 1 - task;  // under a causal mask late rows cost most: they go first
        const std::int64_t block = from_end / a.groups, s = segment_holding(blocks.rows, a.segments, block);
        attend(a, row_block(a, segment_of(a, s), from_end % a.groups, block - blocks.rows[s]), space, q, k, v, o, lse);
      }
    }
  });
}

}  // namespace lomo::LOMO_ISA
