// Attention forward: blocks of 64 query rows in vector lanes pass over blocks of 64 keys with a running maximum and sum.
#pragma once

#include <limits>

#include <omp.h>

#include "few.h"

namespace lomo::LOMO_ISA {

// A row block on its way over the keys. Blocks called _t have rows in their lanes.
template <class U> struct Passage {
  RowBlock rows;
  U* q_t;                           // [padded / per, 64]
  float* o_t;                       // [padded, 64]
  float *top, *base, *mass, *fade;  // [64]: running maximum, the exponent subtracted, running sum, factor of older sums
  Sight* sight;
};
// What one thread works in. With f32 units the weights take the place of the scores.
template <class U> struct ForwardSpace {
  float* rows;   // [64, padded]
  U *k, *v;      // [64, padded / per], units along dim; [64 / per, padded], units along keys
  float* s_t;    // scores [keys 64, 64]
  U* p;          // weights [64 / per, 64], units along keys
  Passage<U> passage[largest_span];
};
inline std::int64_t forward_span(const Attention& a) { return a.padded <= 128 ? largest_span : largest_span / 2; }
template <class U> ForwardSpace<U> forward_space(const Attention& a, Cutter& cut) {
  ForwardSpace<U> w{};
  w.rows = cut.take<float>(block_rows * a.padded);
  for (U** p : {&w.k, &w.v}) *p = cut.take<U>(block_keys * a.padded / per<U>);
  w.s_t = cut.take<float>(block_keys * block_rows);
  if constexpr (per<U> == 1) w.p = w.s_t;
  else w.p = cut.take<U>(block_keys * block_rows / per<U>);
  for (std::int64_t i = 0; i < forward_span(a); ++i) {
    Passage<U>& x = w.passage[i];
    x.q_t = cut.take<U>(block_rows * a.padded / per<U>);
    x.o_t = cut.take<float>(block_rows * a.padded);
    for (float** p : {&x.top, &x.base, &x.mass, &x.fade}) *p = cut.take<float>(block_rows);
    x.sight = cut.take<Sight>(1);
  }
  return w;
}

// Scores of keys [begin, end) become weights relative to the new maximum; top, base, mass and fade follow.
template <class U> void weigh(const Passage<U>& w, float* s_t, U* weights, const Runs& runs, std::int64_t begin, float steepness) {
  const f32x16 nothing(-std::numeric_limits<float>::infinity());
  for (std::int64_t v = 0; v < w.rows.vectors; ++v) {
    float* s = s_t + v * lanes;
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
      const auto weight = [&](std::int64_t j) LOMO_ALWAYS {
        const f32x16 p = exp2_small(fma(load(s + (j - begin) * block_rows), slope, -base));
        mass += p;
        return p;
      };
      U* to = weights + (run.begin - begin) / per<U> * block_rows + v * lanes;
      for (std::int64_t j = run.begin; j < run.end; j += per<U>, to += block_rows) {
        if constexpr (per<U> == 1) {
          store(to, weight(j));
        } else {
          const f32x16 first = weight(j);
          store_pairs(to, first, j + 1 < run.end ? weight(j + 1) : f32x16(0.0f));
        }
      }
    }
    const f32x16 fade = exp2_small(fma(before, slope, -base));
    store(w.top + v * lanes, top);
    store(w.base + v * lanes, base);
    store(w.fade + v * lanes, fade);
    store(w.mass + v * lanes, fma(load(w.mass + v * lanes), fade, mass));
  }
}

template <class U, class T> void begin_passage(const Attention& a, const Passage<U>& w, const T* q, float* space) {
  const std::int64_t n = w.rows.vectors * lanes, length = a.padded / per<U>;
  U* rows = reinterpret_cast<U*>(space);
  pack_rows(a, w.rows, q, slope_of(a.scale).sign, rows);
  transpose(n, length, rows, length, w.q_t, block_rows);
  look(a, w.rows, *w.sight);
  for (std::int64_t i = 0; i < n; i += lanes) {
    store(w.top + i, f32x16(-std::numeric_limits<float>::infinity()));
    store(w.base + i, f32x16(0.0f));
    store(w.mass + i, f32x16(0.0f));
  }
  for (std::int64_t j = 0; j < a.padded; ++j)
    for (std::int64_t i = 0; i < n; i += lanes) store(w.o_t + j * block_rows + i, f32x16(0.0f));
}

// One block of keys, packed in k and v.
template <class U> void pass_keys(const Attention& a, const Passage<U>& w, std::int64_t begin, std::int64_t end, const ForwardSpace<U>& space) {
  const Runs runs = runs_of(w.rows, *w.sight, begin, end);
  if (runs.count == 0) return;
  float* s_t = space.s_t;
  for (int r = 0; r < runs.count; ++r) {
    const Run& run = runs.run[r];
    const std::int64_t at = run.begin - begin, lane0 = run.first * lanes;
    const std::int64_t length = a.padded / per<U>;
    product<Stored::rows, U>(run.end - run.begin, (run.last - run.first) * lanes, units<U>(a.dim), {space.k + at * length, length, w.q_t + lane0, block_rows},
                          {s_t + at * block_rows + lane0, block_rows, Begin::zero, nullptr});
  }
  weigh(w, s_t, space.p, runs, begin, slope_of(a.scale).steepness);
  const bool whole = runs.count == 1 && runs.run[0].first == 0 && runs.run[0].last == w.rows.vectors;
  if (!whole)
    for (std::int64_t j = 0; j < a.dim; ++j)
      for (std::int64_t i = 0; i < w.rows.vectors * lanes; i += lanes) store(w.o_t + j * block_rows + i, load(w.o_t + j * block_rows + i) * load(w.fade + i));
  for (int r = 0; r < runs.count; ++r) {
    const Run& run = runs.run[r];
    const std::int64_t at = run.begin - begin, lane0 = run.first * lanes;
    const std::int64_t unit_at = at / per<U>;
    product<Stored::columns, U>(a.dim, (run.last - run.first) * lanes, units<U>(run.end - run.begin), {space.v + unit_at * a.padded, a.padded, space.p + unit_at * block_rows + lane0, block_rows},
                             {w.o_t + lane0, block_rows, whole ? Begin::scaled : Begin::sum, w.fade + lane0});
  }
}

template <class U, class T> void end_passage(const Attention& a, const Passage<U>& w, float* rows, T* o, float* lse) {
  transpose(a.padded, w.rows.vectors * lanes, w.o_t, block_rows, rows, a.padded);
  for (std::int64_t i = 0; i < w.rows.count; ++i) {
    lse[w.rows.head(a, i) * a.tokens + w.rows.token(a, i)] = lse_of(w.base[i], w.mass[i]);
    w.fade[i] = inverse_mass(w.mass[i]);
  }
  unpack_rows(a, w.rows, rows, w.fade, o);
}

// Row blocks first .. first + count of a segment and group, side by side over its keys.
template <class T>
void attend(const Attention& a, const Segment& segment, std::int64_t group, std::int64_t first, std::int64_t count, const ForwardData<T>& x, ForwardSpace<unit<T>>& w) {
  std::int64_t begin = segment.keys, last = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    Passage<unit<T>>& passage = w.passage[i];
    passage.rows = row_block(a, segment, group, first + i);
    begin_passage(a, passage, x.q, w.rows);
    begin = smaller<std::int64_t>(begin, passage.sight->low[0]);
    last = larger<std::int64_t>(last, passage.sight->high[passage.rows.vectors * lanes - 1] + 1);
  }
  for (begin = begin / block_keys * block_keys; begin < last; begin += block_keys) {
    const std::int64_t end = smaller(segment.keys, begin + block_keys);
    pack_keys(a, segment, group, x.k, begin, end, w.k);
    pack_key_units(a, segment, group, x.v, begin, end, w.rows, w.v);
    for (std::int64_t i = 0; i < count; ++i) pass_keys(a, w.passage[i], begin, end, w);
  }
  for (std::int64_t i = 0; i < count; ++i) end_passage(a, w.passage[i], w.rows, x.o, x.lse);
}

inline std::size_t attention_workspace(const Call& call) {
  const Attention a = attention_of("attention", call);
  Cutter cut(nullptr);
  with_real(call.in(0).dtype, [&](auto* t) { forward_space<unit<pointee<decltype(t)>>>(a, cut); });
  return blocks_bytes(a) + cut.used() * static_cast<std::size_t>(larger(1, call.threads));
}

inline void attention(const Call& call) {
  const Attention a = attention_of("attention", call);
  same_size(a.op, "o", call.out(0).count(), call.in(0).count());
  same_size(a.op, "lse", call.out(1).count(), a.tokens * a.heads);
  const std::int64_t allowed = larger(1, call.threads);
  // Long spans where there is work for everyone.
  const std::int64_t all_rows = a.tokens * a.heads / block_rows, span = larger<std::int64_t>(1, smaller(forward_span(a), all_rows / (4 * allowed)));
  const Blocks blocks = blocks_of(a, span, call.workspace);
  char* spaces = static_cast<char*>(call.workspace) + blocks_bytes(a);
  with_real(call.in(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const ForwardData<T> x{call.in(0).as<const T>(), call.in(1).as<const T>(), call.in(2).as<const T>(), call.out(0).as<T>(), call.out(1).as<float>()};
    const std::int64_t first = a.segments > 0 ? a.cu_q[0] : 0, end = a.segments > 0 ? a.cu_q[a.segments] : 0;
    clear_outside(x.o, a.heads * a.dim, a.tokens, first, end);
    for (std::int64_t h = 0; h < a.heads; ++h)
      for (std::int64_t i = 0; i < a.tokens; ++i)
        if (i < first || i >= end) x.lse[h * a.tokens + i] = -std::numeric_limits<float>::infinity();
    const std::int64_t tasks = blocks.spans[a.segments] * a.groups;
    const int threads = static_cast<int>(smaller(allowed, larger<std::int64_t>(1, tasks)));
#pragma omp parallel num_threads(threads)
    {
      Cutter count(nullptr);
      forward_space<unit<T>>(a, count);
      Cutter cut(spaces + count.used() * static_cast<std::size_t>(omp_get_thread_num()));
      ForwardSpace<unit<T>> space = forward_space<unit<T>>(a, cut);
#pragma omp for schedule(dynamic, 1)
      for (std::int64_t task = 0; task < tasks; ++task) {
        const std::int64_t from_end = tasks - 1 - task;  // under a causal mask late rows cost most: they go first
        const std::int64_t entry = from_end / a.groups, s = segment_holding(blocks.spans, a.segments, entry);
        const Segment segment = segment_of(a, s);
        if (segment.queries * a.heads_per_group <= few_rows) {
          attend_few(a, row_block(a, segment, from_end % a.groups, 0), x, space.s_t, space.rows);
          continue;
        }
        const std::int64_t block = (entry - blocks.spans[s]) * span;
        attend(a, segment, from_end % a.groups, block, smaller(span, row_blocks(a, segment) - block), x, space);
      }
    }
  });
}

}  // namespace lomo::LOMO_ISA
