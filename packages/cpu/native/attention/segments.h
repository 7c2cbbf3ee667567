// What one attention call is about: checked shapes, its segments, and how they divide into blocks of query rows and of keys.
#pragma once

#include "../ops/dispatch.h"
#include "../simd/parallel.h"
#include "unit.h"

namespace lomo::LOMO_ISA {

// A query row is one query of one head. The heads of a key-value group lie side by side, so rows of a segment and group are numbered
// query * heads_per_group + head; blocks of them share the keys they read.
constexpr std::int64_t block_rows = 64, block_keys = 64, chunk_keys = 16;

struct Attention {
  const char* op;
  std::int64_t tokens, heads, keys, groups, dim, segments;
  std::int64_t heads_per_group;
  std::int64_t padded;  // dim rounded up to whole vectors of units: the row length of packed blocks
  double scale;
  bool causal;
  std::int64_t window, max_q, max_k;
  const std::int32_t *cu_q, *cu_k;

  std::int64_t query(std::int64_t token, std::int64_t head) const { return (token * heads + head) * dim; }
  std::int64_t key(std::int64_t token, std::int64_t group) const { return (token * groups + group) * dim; }
};

// Shapes and attributes only; q, k, v are operands 0, 1, 2, and cu_q, cu_k the last two inputs.
inline Attention attention_of(const char* op, const Call& call) {
  const Operand &q = call.in(0), &k = call.in(1), &v = call.in(2), &cu_q = call.in(call.ins - 2), &cu_k = call.in(call.ins - 1);
  LOMO_REQUIRE(q.rank == 3 && k.rank == 3 && v.rank == 3, "BadShape", "%s: q, k and v have %d, %d and %d dimensions; each needs [tokens, heads, head_dim]",
               op, q.rank, k.rank, v.rank);
  Attention a{op, q.dim[0], q.dim[1], k.dim[0], k.dim[1], q.dim[2], cu_q.count() - 1, 0, 0, call.attr(0), call.flag(1), call.integer(2), call.integer(3), call.integer(4),
              cu_q.as<const std::int32_t>(), cu_k.as<const std::int32_t>()};
  LOMO_REQUIRE(a.dim >= 1 && a.dim <= 256, "BadShape", "%s: head_dim %lld is outside 1..256", op, static_cast<long long>(a.dim));
  LOMO_REQUIRE(k.dim[2] == a.dim, "BadShape", "%s: head_dim of q is %lld, of k %lld", op, static_cast<long long>(a.dim), static_cast<long long>(k.dim[2]));
  same_size(op, "v", v.count(), k.count());
  LOMO_REQUIRE(a.groups >= 1 && a.heads >= 1 && a.heads % a.groups == 0, "BadShape", "%s: %lld heads do not divide into %lld key-value groups", op,
               static_cast<long long>(a.heads), static_cast<long long>(a.groups));
  LOMO_REQUIRE(a.segments >= 0 && cu_k.count() == cu_q.count(), "BadShape", "%s: cu_q has %lld numbers, cu_k %lld; both need segments + 1", op,
               static_cast<long long>(cu_q.count()), static_cast<long long>(cu_k.count()));
  a.heads_per_group = a.heads / a.groups;
  with_real(q.dtype, [&](auto* t) {
    constexpr std::int64_t whole = lanes * per<unit<pointee<decltype(t)>>>;
    a.padded = ceil_div(a.dim, whole) * whole;
  });
  return a;
}

struct Segment {
  std::int64_t q, k, queries, keys;  // first rows and lengths
};
LOMO_INLINE Segment segment_of(const Attention& a, std::int64_t s) {
  return {a.cu_q[s], a.cu_k[s], a.cu_q[s + 1] - a.cu_q[s], a.cu_k[s + 1] - a.cu_k[s]};
}

// A task takes up to `span` row blocks of one segment and group, which then share each packed block of keys. No bit depends on it.
constexpr std::int64_t largest_span = 4;

// Ends of each segment in the list of all spans of row blocks and in that of all key blocks; the tasks of a call are numbered by them.
struct Blocks {
  std::int64_t* spans;  // [segments + 1]
  std::int64_t* keys;   // [segments + 1]
};
inline std::size_t blocks_bytes(const Attention& a) { return static_cast<std::size_t>(ceil_div((a.segments + 1) * 16, 64) * 64); }

// Checks cu_q and cu_k, which are data, and fills the lists at the front of the workspace.
inline Blocks blocks_of(const Attention& a, std::int64_t span, void* workspace) {
  auto* spans = static_cast<std::int64_t*>(workspace);
  const Blocks b{spans, spans + a.segments + 1};
  LOMO_REQUIRE(a.cu_q[0] >= 0 && a.cu_k[0] >= 0 && a.cu_q[a.segments] <= a.tokens && a.cu_k[a.segments] <= a.keys, "BadSegments",
               "%s: cu_q covers rows %d..%d of %lld and cu_k %d..%d of %lld; give segments that lie inside q and k", a.op, a.cu_q[0], a.cu_q[a.segments],
               static_cast<long long>(a.tokens), a.cu_k[0], a.cu_k[a.segments], static_cast<long long>(a.keys));
  b.spans[0] = b.keys[0] = 0;
  for (std::int64_t s = 0; s < a.segments; ++s) {
    const Segment segment = segment_of(a, s);
    LOMO_REQUIRE(segment.queries >= 0 && segment.keys >= 0 && segment.queries <= a.max_q && segment.keys <= a.max_k, "BadSegments",
                 "%s: segment %lld has %lld queries and %lld keys; each must lie in 0..max_q = %lld and 0..max_k = %lld", a.op, static_cast<long long>(s),
                 static_cast<long long>(segment.queries), static_cast<long long>(segment.keys), static_cast<long long>(a.max_q), static_cast<long long>(a.max_k));
    b.spans[s + 1] = b.spans[s] + ceil_div(segment.queries * a.heads_per_group, span * block_rows);
    b.keys[s + 1] = b.keys[s] + ceil_div(segment.keys, block_keys);
  }
  return b;
}

// The segment that holds entry `block` of a list: the last s with ends[s] <= block.
LOMO_INLINE std::int64_t segment_holding(const std::int64_t* ends, std::int64_t segments, std::int64_t block) {
  std::int64_t low = 0, high = segments;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    if (ends[middle] <= block) low = middle;
    else high = middle;
  }
  return low;
}

// Cuts a workspace into 64-byte aligned pieces; with a null base it only counts.
class Cutter {
 public:
  explicit Cutter(void* base) : base_(static_cast<char*>(base)) {}
  template <class E> E* take(std::int64_t count) {
    E* p = base_ == nullptr ? nullptr : reinterpret_cast<E*>(base_ + used_);
    used_ += static_cast<std::size_t>(ceil_div(count * static_cast<std::int64_t>(sizeof(E)), 64) * 64);
    return p;
  }
  std::size_t used() const { return used_; }

 private:
  char* base_;
  std::size_t used_ = 0;
};

}  // namespace lomo::LOMO_ISA
