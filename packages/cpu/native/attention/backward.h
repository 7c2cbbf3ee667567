// Attention backward: weights are computed again block by block from lse. Gradients of queries add key blocks in ascending order, those of
// keys and values add row blocks in ascending order; whether one pass makes all three or two passes share the work, the bits are the same.
#pragma once

#include <limits>

#include <omp.h>

#include "rows.h"

namespace lomo::LOMO_ISA {

// A row block on its way over the keys. Blocks called _t have rows in their lanes.
template <class U> struct Return {
  RowBlock rows;
  U *q, *dout;                   // [64 / per, padded], units along rows
  U *q_t, *dout_t;               // [padded / per, 64], units along dim
  float* dq_t;                   // [padded, 64]
  float *lse2, *inner, *factor;  // [64]: lse in powers of two, sum of o times its gradient, scale
  Sight* sight;
};
// What one thread works in. With f32 units p and ds take the place of the products they are made from, and each block serves all its uses.
template <class U> struct BackwardSpace {
  float* rows;             // [64, padded]
  U *k, *v;                // [64, padded / per], units along dim
  U* k_units;              // [64 / per, padded], units along keys
  float *s_t, *dp_t;       // products [keys 64, 64]
  U *p, *ds;               // [keys 64, 64 / per], units along rows
  U* ds_units;             // [64 / per, 64], units along keys
  float *dk, *dv;          // [keys of a segment, padded] in one pass, [64, padded] in two
  Return<U> row[largest_span];
};
// Row blocks side by side: as many as fit a second-level cache of 1 MiB beside the rest.
inline std::int64_t backward_span(const Attention& a) { return a.padded <= 64 ? largest_span : a.padded <= 128 ? 2 : 1; }
template <class U> BackwardSpace<U> backward_space(const Attention& a, std::int64_t sum_keys, Cutter& cut) {
  const std::int64_t block = block_rows * a.padded, scores = block_keys * block_rows;
  BackwardSpace<U> w{};
  w.rows = cut.take<float>(block);
  for (U** p : {&w.k, &w.v}) *p = cut.take<U>(block / per<U>);
  for (float** p : {&w.s_t, &w.dp_t}) *p = cut.take<float>(scores);
  if constexpr (per<U> == 1) {
    w.k_units = w.k;
    w.p = w.s_t;
    w.ds = w.ds_units = w.dp_t;
  } else {
    w.k_units = cut.take<U>(block / per<U>);
    for (U** p : {&w.p, &w.ds, &w.ds_units}) *p = cut.take<U>(scores / per<U>);
  }
  for (float** p : {&w.dk, &w.dv}) *p = cut.take<float>(sum_keys * a.padded);
  for (std::int64_t i = 0; i < backward_span(a); ++i) {
    Return<U>& x = w.row[i];
    for (U** p : {&x.q, &x.dout, &x.q_t, &x.dout_t}) *p = cut.take<U>(block / per<U>);
    x.dq_t = cut.take<float>(block);
    for (float** p : {&x.lse2, &x.inner, &x.factor}) *p = cut.take<float>(block_rows);
    x.sight = cut.take<Sight>(1);
  }
  return w;
}

template <class T> struct BackwardData {
  const T *q, *k, *v, *o;
  const float* lse;
  const T* dout;
  T *dq, *dk, *dv;
};

// Everything about a row block that does not depend on the keys.
template <class U, class T> void prepare_rows(const Attention& a, const Return<U>& w, const BackwardData<T>& x, float* space) {
  const RowBlock& rows = w.rows;
  const std::int64_t n = rows.vectors * lanes;
  turn_rows(a, rows, x.q, space, w.q, w.q_t);
  turn_rows(a, rows, x.dout, space, w.dout, w.dout_t);
  look(a, rows, *w.sight);
  for (std::int64_t i = 0; i < n; ++i) {
    w.factor[i] = static_cast<float>(a.scale);
    w.inner[i] = 0;
    w.lse2[i] = std::numeric_limits<float>::infinity();  // weight 0: lanes without a row, rows that see nothing
    if (i >= rows.count) continue;
    const float lse = x.lse[rows.head(a, i) * a.tokens + rows.token(a, i)];
    if (lse == -std::numeric_limits<float>::infinity()) continue;
    w.lse2[i] = lse * 1.44269504f;
    const std::int64_t at = a.query(rows.token(a, i), rows.head(a, i));
    f32x16 inner(0.0f);
    for (std::int64_t j = 0; j < a.dim; j += lanes) inner = fma(load(x.dout + at + j, row_left(a, j)), load(x.o + at + j, row_left(a, j)), inner);
    w.inner[i] = sum(inner);
  }
}

// Scores and products of one run become weights p and gradients of scores ds, both 0 where a row does not see a key.
template <class U> void differentiate(const Return<U>& w, const BackwardSpace<U>& space, const Run& run, std::int64_t begin, const Slope& slope) {
  const f32x16 zero(0.0f), steepness(slope.steepness), sign(slope.sign);
  for (std::int64_t v = run.first; v < run.last; ++v) {
    const f32x16 lse2 = load(w.lse2 + v * lanes), inner = load(w.inner + v * lanes), s_factor = steepness * sign;
    const bool all = w.sight->sees_all(v, run.begin, run.end);
    // Stores p of key j, returns its ds.
    const auto one = [&](std::int64_t j) LOMO_ALWAYS {
      const std::int64_t at = (j - begin) * block_rows + v * lanes;
      f32x16 p = exp2_small(fma(load(space.s_t + at), s_factor, -lse2));
      f32x16 ds = p * (load(space.dp_t + at) - inner);
      if (!all) {
        const mask16 seen = w.sight->of(v, j);
        p = select(seen, p, zero);
        ds = select(seen, ds, zero);
      }
      if constexpr (per<U> == 1) {
        store(space.p + at, p);
        store(space.ds + at, ds);
      } else {
        store_half(space.p + at / per<U>, p);
        store_half(space.ds + at / per<U>, ds);
      }
      return ds;
    };
    if constexpr (per<U> == 1) {
      for (std::int64_t j = run.begin; j < run.end; ++j) one(j);
    } else {
      for (std::int64_t j = run.begin; j < run.end; j += 2) {
        const f32x16 first = one(j);
        store_pairs(space.ds_units + (j - begin) / 2 * block_rows + v * lanes, first, j + 1 < run.end ? one(j + 1) : zero);
      }
    }
  }
}

inline void clear_floats(float* p, std::int64_t count) { std::memset(p, 0, static_cast<std::size_t>(count) * sizeof(float)); }

// One row block beside keys begin .. end, packed: adds to dq_t where wanted, and to dk, dv (their rows of key `begin`) unless null.
template <class U>
void differentiate_block(const Attention& a, const Return<U>& w, const BackwardSpace<U>& space, std::int64_t begin, std::int64_t end, bool want_dq, float* dk, float* dv) {
  const Slope slope = slope_of(a.scale);
  const Runs runs = runs_of(w.rows, *w.sight, begin, end);
  const std::int64_t whole = ceil_div(a.dim, width) * width, length = a.padded / per<U>, dim = units<U>(a.dim);
  for (int r = 0; r < runs.count; ++r) {
    const Run& run = runs.run[r];
    const std::int64_t at = run.begin - begin, keys = run.end - run.begin, lane0 = run.first * lanes, n = (run.last - run.first) * lanes;
    const std::int64_t real = units<U>(smaller(n, w.rows.count - lane0)), first = at * block_rows + lane0;
    product<Stored::rows, U>(keys, n, dim, {space.k + at * length, length, w.q_t + lane0, block_rows}, {space.s_t + first, block_rows, Begin::zero, nullptr});
    product<Stored::rows, U>(keys, n, dim, {space.v + at * length, length, w.dout_t + lane0, block_rows}, {space.dp_t + first, block_rows, Begin::zero, nullptr});
    differentiate(w, space, run, begin, slope);
    if (want_dq) {
      const std::int64_t key = at / per<U>;
      product<Stored::columns, U>(a.dim, n, units<U>(keys), {space.k_units + key * a.padded, a.padded, space.ds_units + key * block_rows + lane0, block_rows},
                                  {w.dq_t + lane0, block_rows, Begin::sum, nullptr});
    }
    if (dk == nullptr) continue;
    const std::int64_t row = lane0 / per<U> * a.padded;
    product<Stored::rows, U>(keys, whole, real, {space.p + first / per<U>, block_rows / per<U>, w.dout + row, a.padded}, {dv + at * a.padded, a.padded, Begin::sum, nullptr});
    product<Stored::rows, U>(keys, whole, real, {space.ds + first / per<U>, block_rows / per<U>, w.q + row, a.padded}, {dk + at * a.padded, a.padded, Begin::sum, nullptr});
  }
}

// Keys begin .. end in every arrangement that the products want.
template <class U, class T>
void arrange_keys(const Attention& a, const Segment& segment, std::int64_t group, const BackwardData<T>& x, std::int64_t begin, std::int64_t end, const BackwardSpace<U>& w) {
  pack_keys(a, segment, group, x.k, begin, end, w.k);
  pack_keys(a, segment, group, x.v, begin, end, w.v);
  if constexpr (per<U> != 1) pair_rows(end - begin, a.padded, w.k, w.k_units);
}

// Row blocks first .. first + count side by side over all their key blocks, in ascending order; writes their dq, and adds to dk and dv of
// the segment where wanted.
template <class T>
void differentiate_rows(const Attention& a, const Segment& segment, std::int64_t group, std::int64_t first, std::int64_t count, BackwardSpace<unit<T>>& w, const BackwardData<T>& x,
                        bool want_keys) {
  std::int64_t begin = segment.keys, last = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    Return<unit<T>>& row = w.row[i];
    row.rows = row_block(a, segment, group, first + i);
    prepare_rows(a, row, x, w.rows);
    clear_floats(row.dq_t, a.padded * block_rows);
    begin = smaller<std::int64_t>(begin, row.sight->low[0]);
    last = larger<std::int64_t>(last, row.sight->high[row.rows.vectors * lanes - 1] + 1);
  }
  for (begin = begin / block_keys * block_keys; begin < last; begin += block_keys) {
    const std::int64_t end = smaller(segment.keys, begin + block_keys);
    arrange_keys(a, segment, group, x, begin, end, w);
    for (std::int64_t i = 0; i < count; ++i)
      differentiate_block(a, w.row[i], w, begin, end, true, want_keys ? w.dk + begin * a.padded : nullptr, want_keys ? w.dv + begin * a.padded : nullptr);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const Return<unit<T>>& row = w.row[i];
    transpose(a.padded, row.rows.vectors * lanes, row.dq_t, block_rows, w.rows, a.padded);
    unpack_rows(a, row.rows, w.rows, row.factor, x.dq);
  }
}

// Rows of sums [end - begin, padded] times `factor`, rounded into dx.
template <class T>
void unpack_keys(const Attention& a, const Segment& segment, std::int64_t group, std::int64_t begin, std::int64_t end, const float* sums, float factor, T* dx) {
  for (std::int64_t i = begin; i < end; ++i, sums += a.padded) {
    T* to = dx + a.key(segment.k + i, group);
    for (std::int64_t j = 0; j < a.dim; j += lanes) store(to + j, load(sums + j) * factor, row_left(a, j));
  }
}

// One pass over a segment and group: five products a block.
template <class T> void one_pass(const Attention& a, const Segment& segment, std::int64_t group, BackwardSpace<unit<T>>& w, const BackwardData<T>& x) {
  clear_floats(w.dk, segment.keys * a.padded);
  clear_floats(w.dv, segment.keys * a.padded);
  const std::int64_t blocks = row_blocks(a, segment), span = backward_span(a);
  for (std::int64_t b = 0; b < blocks; b += span) differentiate_rows(a, segment, group, b, smaller(span, blocks - b), w, x, true);
  unpack_keys(a, segment, group, 0, segment.keys, w.dk, static_cast<float>(a.scale), x.dk);
  unpack_keys(a, segment, group, 0, segment.keys, w.dv, 1.0f, x.dv);
}

// All row blocks for one key block, in ascending order; writes its dk and dv.
template <class T>
void differentiate_keys(const Attention& a, const Segment& segment, std::int64_t group, std::int64_t block, BackwardSpace<unit<T>>& w, const BackwardData<T>& x) {
  const std::int64_t begin = block * block_keys, end = smaller(segment.keys, begin + block_keys);
  clear_floats(w.dk, (end - begin) * a.padded);
  clear_floats(w.dv, (end - begin) * a.padded);
  arrange_keys(a, segment, group, x, begin, end, w);
  Return<unit<T>>& row = w.row[0];
  for (std::int64_t b = 0; b < row_blocks(a, segment); ++b) {
    row.rows = row_block(a, segment, group, b);
    look(a, row.rows, *row.sight);
    if (row.sight->high[row.rows.vectors * lanes - 1] < begin || row.sight->low[0] >= end) continue;
    prepare_rows(a, row, x, w.rows);
    differentiate_block(a, row, w, begin, end, false, w.dk, w.dv);
  }
  unpack_keys(a, segment, group, begin, end, w.dk, static_cast<float>(a.scale), x.dk);
  unpack_keys(a, segment, group, begin, end, w.dv, 1.0f, x.dv);
}

// One pass keeps dk and dv of a whole segment per thread; beyond this many bytes two passes are made instead.
constexpr std::int64_t one_pass_bytes = 32 << 20;
inline std::int64_t sum_keys(const Attention& a) {
  const std::int64_t whole = larger(block_keys, a.max_k);
  return whole * a.padded * 8 <= one_pass_bytes ? whole : block_keys;
}

inline std::size_t attention_backward_workspace(const Call& call) {
  const Attention a = attention_of("attention_backward", call);
  Cutter cut(nullptr);
  with_real(call.in(0).dtype, [&](auto* t) { backward_space<unit<pointee<decltype(t)>>>(a, sum_keys(a), cut); });
  return blocks_bytes(a) + cut.used() * static_cast<std::size_t>(larger(1, call.threads));
}

inline void attention_backward(const Call& call) {
  const Attention a = attention_of("attention_backward", call);
  const std::int64_t count_q = call.in(0).count(), count_k = call.in(1).count();
  same_size(a.op, "o", call.in(3).count(), count_q);
  same_size(a.op, "lse", call.in(4).count(), a.tokens * a.heads);
  same_size(a.op, "do", call.in(5).count(), count_q);
  same_size(a.op, "dq", call.out(0).count(), count_q);
  same_size(a.op, "dk", call.out(1).count(), count_k);
  same_size(a.op, "dv", call.out(2).count(), count_k);
  const std::int64_t span = backward_span(a);
  const Blocks blocks = blocks_of(a, span, call.workspace);
  char* spaces = static_cast<char*>(call.workspace) + blocks_bytes(a);
  with_real(call.in(0).dtype, [&](auto* t) {
    using T = pointee<decltype(t)>;
    const BackwardData<T> x{call.in(0).as<const T>(), call.in(1).as<const T>(), call.in(2).as<const T>(), call.in(3).as<const T>(), call.in(4).as<const float>(),
                            call.in(5).as<const T>(), call.out(0).as<T>(),      call.out(1).as<T>(),      call.out(2).as<T>()};
    const bool some = a.segments > 0;
    clear_outside(x.dq, a.heads * a.dim, a.tokens, some ? a.cu_q[0] : 0, some ? a.cu_q[a.segments] : 0);
    clear_outside(x.dk, a.groups * a.dim, a.keys, some ? a.cu_k[0] : 0, some ? a.cu_k[a.segments] : 0);
    clear_outside(x.dv, a.groups * a.dim, a.keys, some ? a.cu_k[0] : 0, some ? a.cu_k[a.segments] : 0);
    const std::int64_t key_tasks = blocks.keys[a.segments] * a.groups, row_tasks = blocks.spans[a.segments] * a.groups, whole_tasks = a.segments * a.groups;
    const std::int64_t allowed = larger(1, call.threads), sums = sum_keys(a);
    // Two passes compute seven products a block, one pass five: worth it only where a thread would stand idle.
    const std::int64_t rounds = ceil_div(whole_tasks, allowed);
    const bool one = sums >= a.max_k && 5 * rounds * allowed <= 7 * whole_tasks;
    const std::int64_t tasks = one ? whole_tasks : key_tasks + row_tasks;
    const int threads = static_cast<int>(smaller(allowed, larger<std::int64_t>(1, tasks)));
#pragma omp parallel num_threads(threads)
    {
      Cutter count(nullptr);
      backward_space<unit<T>>(a, sums, count);
      Cutter cut(spaces + count.used() * static_cast<std::size_t>(omp_get_thread_num()));
      BackwardSpace<unit<T>> w = backward_space<unit<T>>(a, sums, cut);
#pragma omp for schedule(dynamic, 1)
      for (std::int64_t task = 0; task < tasks; ++task) {
        if (one) {
          one_pass(a, segment_of(a, task / a.groups), task % a.groups, w, x);
        } else if (task < key_tasks) {  // under a causal mask early keys cost most
          const std::int64_t block = task / a.groups, s = segment_holding(blocks.keys, a.segments, block);
          differentiate_keys(a, segment_of(a, s), task % a.groups, block - blocks.keys[s], w, x);
        } else {  // and late rows
          const std::int64_t from_end = key_tasks + row_tasks - 1 - task, entry = from_end / a.groups, s = segment_holding(blocks.spans, a.segments, entry);
          const Segment segment = segment_of(a, s);
          const std::int64_t block = (entry - blocks.spans[s]) * span;
          differentiate_rows(a, segment, from_end % a.groups, block, smaller(span, row_blocks(a, segment) - block), w, x, false);
        }
      }
    }
  });
}

}  // namespace lomo::LOMO_ISA
