// embedding_grad_add: tokens are sorted by id, then each id adds its tokens' rows of dy to its row of g. A row's sum is one of chunks of
// tokens of the call, ascending, each summed from its first token on: the bits of an id do not depend on the others, nor on a split of the
// tokens at multiples of token_chunk. An id of up to 64 tokens is one block's work; of more, many blocks' and warps', a warp a chunk at a time.
#include "gpu/sort.h"
#include "gpu/storage.h"
#include "gpu/token_sum.h"

namespace lomo::embedding_grad_add {

constexpr int most_short = 64, warps = 8;

struct SumArgs {
  const int *rows, *tokens;  // sorted
  const void* dy;
  float* g;
  std::int64_t h;
  int count, tile_rows;      // tokens; rows of g
};
// Columns of a warp of an id with many tokens.
constexpr int slice_of(bool wide) { return wide ? 128 : 32; }

#if defined(LOMO_DEVICE)
using namespace gpu;

// The first place from `from` to `to` whose value is `least` or more; they ascend.
__device__ __forceinline__ int lower_bound(const int* values, int from, int to, i64 least) {
  while (from < to) {
    const int middle = from + (to - from) / 2;
    if (values[middle] < least) from = middle + 1;
    else to = middle;
  }
  return from;
}

template <int V, class T> __device__ __forceinline__ void load(float (&v)[V], const T* p) {
  if constexpr (V == 4) load4(v, p);
  else v[0] = get(p);
}

// Places from .. to of the sorted tokens, one chunk's, in columns j .. j + V.
template <int V, class T> __device__ __forceinline__ void sum_run(float (&sum)[V], const SumArgs& a, int from, int to, i64 j) {
  const T* const dy = static_cast<const T*>(a.dy) + j;
  load<V>(sum, dy + a.tokens[from] * a.h);
  int i = from + 1;
  for (; i + 4 <= to; i += 4) {
    float v[4][V];
#pragma unroll
    for (int k = 0; k < 4; ++k) load<V>(v[k], dy + a.tokens[i + k] * a.h);
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int e = 0; e < V; ++e) sum[e] += v[k][e];
  }
  for (; i < to; ++i) {
    float v[V];
    load<V>(v, dy + a.tokens[i] * a.h);
#pragma unroll
    for (int e = 0; e < V; ++e) sum[e] += v[e];
  }
}

// A block for every place of the sorted tokens; it works where a row begins that is no more than 64 long.
template <class T, int V> __device__ __forceinline__ void sum_short(const SumArgs& a) {
  for (int start = static_cast<int>(blockIdx.x); start < a.count; start += static_cast<int>(gridDim.x)) {
    const int row = a.rows[start];
    if (row >= a.tile_rows || (start > 0 && a.rows[start - 1] == row)) continue;
    const int end = lower_bound(a.rows, start, start + most_short + 1 < a.count ? start + most_short + 1 : a.count, static_cast<i64>(row) + 1);
    if (end - start > most_short) continue;
    for (i64 j = static_cast<i64>(threadIdx.x) * V; j < a.h; j += static_cast<i64>(blockDim.x) * V) {
      float* const g = a.g + row * a.h + j;
      float total[V];
      load<V>(total, g);
      for (int from = start; from < end;) {
        const i64 next = (a.tokens[from] / token_chunk + 1) * token_chunk;
        const int to = lower_bound(a.tokens, from, end, next);
        float sum[V];
        sum_run<V, T>(sum, a, from, to, j);
#pragma unroll
        for (int e = 0; e < V; ++e) total[e] += sum[e];
        from = to;
      }
#pragma unroll
      for (int e = 0; e < V; ++e) g[e] = total[e];
    }
  }
}

// A block for every 64th place and slice of columns; it works for the row that lies there, is longer than 64, and has no such place before.
template <class T, int V> __device__ __forceinline__ void sum_long(const SumArgs& a) {
  constexpr int columns = 32 * V;
  LOMO_SHARED(float, parts, warps * columns);
  LOMO_SHARED(int, filled, warps);
  const int place = static_cast<int>(blockIdx.x) * most_short;
  const int row = a.rows[place];
  if (row >= a.tile_rows) return;
  const int start = lower_bound(a.rows, 0, place, row), end = lower_bound(a.rows, place, a.count, static_cast<i64>(row) + 1);
  if (end - start <= most_short || place - start >= most_short) return;
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32;
  const i64 slice = static_cast<i64>(blockIdx.y) * columns, j = slice + lane * V;
  float* const g = a.g + row * a.h + slice + t;
  const bool adds = t < columns && slice + t < a.h;
  float total = adds ? *g : 0.0f;
  const int last = static_cast<int>(a.tokens[end - 1] / token_chunk);
  for (int chunk = static_cast<int>(a.tokens[start] / token_chunk); chunk <= last; chunk += warps) {
    const i64 mine = chunk + warp;
    const int from = lower_bound(a.tokens, start, end, mine * token_chunk), to = lower_bound(a.tokens, from, end, (mine + 1) * token_chunk);
    if (lane == 0) filled[warp] = to > from ? 1 : 0;
    if (to > from && j < a.h) {
      float sum[V];
      sum_run<V, T>(sum, a, from, to, j);
#pragma unroll
      for (int e = 0; e < V; ++e) parts[warp * columns + lane * V + e] = sum[e];
    }
    __syncthreads();
    if (adds)
      for (int w = 0; w < warps; ++w)
        if (filled[w] != 0) total += parts[w * columns + t];
    __syncthreads();
  }
  if (adds) *g = total;
}

LOMO_KERNEL(embedding_sort_count, 256, SortArgs, sort_count)  // 40 registers, 1,024 bytes
LOMO_KERNEL(embedding_sort_place, 256, SortArgs, sort_place)  // 40 registers, 32 bytes
LOMO_KERNEL(embedding_sort_scatter, 256, SortArgs, sort_scatter)  // 40 registers, 9,216 bytes
LOMO_KERNEL(embedding_sum_short_f32, 256, SumArgs, sum_short<float, 1>)  // 48 registers, 0 bytes
LOMO_KERNEL(embedding_sum_short_bf16, 256, SumArgs, sum_short<bf16, 1>)  // 48 registers, 0 bytes
LOMO_KERNEL(embedding_sum_short_wide_f32, 256, SumArgs, sum_short<float, 4>)  // 48 registers, 0 bytes
LOMO_KERNEL(embedding_sum_short_wide_bf16, 256, SumArgs, sum_short<bf16, 4>)  // 40 registers, 0 bytes
LOMO_KERNEL(embedding_sum_long_f32, 256, SumArgs, sum_long<float, 1>)  // 48 registers, 1,056 bytes
LOMO_KERNEL(embedding_sum_long_bf16, 256, SumArgs, sum_long<bf16, 1>)  // 48 registers, 1,056 bytes
LOMO_KERNEL(embedding_sum_long_wide_f32, 256, SumArgs, sum_long<float, 4>)  // 48 registers, 4,128 bytes
LOMO_KERNEL(embedding_sum_long_wide_bf16, 256, SumArgs, sum_long<bf16, 4>)  // 40 registers, 4,128 bytes
#endif

}  // namespace lomo::embedding_grad_add

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

using namespace embedding_grad_add;

// Rows and tokens before and after a pass, what the blocks of the sort count.
std::size_t workspace(const Call& call) {
  const std::int64_t tokens = call.in(0).count();
  return static_cast<std::size_t>(4 * tokens + (ceil_div(tokens, gpu::sort_block) + 1) * gpu::sort_digits) * sizeof(int);
}

void grad_add(const Call& call) {
  const char* const op = "embedding_grad_add";
  const Operand &dy = call.in(1), &g = call.inout(0);
  const std::int64_t tokens = call.in(0).count(), h = g.last(), rows = g.rows(), row = call.integer(0);
  same_size(op, "dy", dy.count(), tokens * h);
  constexpr std::int64_t most = std::int64_t{1} << 30;
  if (tokens >= most || rows >= most || row < 0 || row >= 2 * most)
    throw Error("BadShape", std::string(op) + ": " + std::to_string(tokens) + " tokens into " + std::to_string(rows) + " rows from row " + std::to_string(row) + " are more than one call takes: split the batch");
  if (tokens == 0 || h == 0 || rows == 0) return;
  auto* const at = static_cast<int*>(call.workspace);
  int *from = at, *to = at + 2 * tokens;
  gpu::SortArgs sort{};
  sort.counts = at + 4 * tokens;
  sort.base = sort.counts + ceil_div(tokens, gpu::sort_block) * gpu::sort_digits;
  sort.tokens = static_cast<int>(tokens), sort.rows = static_cast<int>(rows), sort.row = static_cast<int>(row);
  for (int pass = 0; pass < gpu::sort_passes(rows); ++pass, std::swap(from, to)) {
    sort.ids = pass == 0 ? call.in(0).as<const int>() : nullptr;
    sort.rows_in = from, sort.tokens_in = from + tokens, sort.rows_out = to, sort.tokens_out = to + tokens;
    sort.shift = 8 * pass;
    const Grid blocks{ceil_div(tokens, gpu::sort_block)};
    start(call, "embedding_sort_count", blocks, &sort);
    start(call, "embedding_sort_place", {1}, &sort);
    start(call, "embedding_sort_scatter", blocks, &sort);
  }
  const bool whole = h % 4 == 0 && wide({dy.data, g.data});
  const SumArgs args{from, from + tokens, dy.data, g.as<float>(), h, static_cast<int>(tokens), static_cast<int>(rows)};
  start(call, KernelName(whole ? "embedding_sum_short_wide" : "embedding_sum_short", dy.dtype), row_grid(tokens), &args);
  if (tokens > most_short) start(call, KernelName(whole ? "embedding_sum_long_wide" : "embedding_sum_long", dy.dtype), {ceil_div(tokens, most_short), ceil_div(h, slice_of(whole))}, &args);
}

}  // namespace

extern const Kernel kernels_embedding_grad_add[] = {
    {"embedding_grad_add", "row", accepts<"ir|f|">, grad_add, workspace},
    {},
};

}  // namespace lomo
#endif
