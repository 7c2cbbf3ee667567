// Tokens sorted by row of a tile, equal rows in token order: a radix sort of 8 bits a pass, 512 tokens a block. Every pass is three
// kernels: how many of each digit a block has, where each block's tokens of a digit begin, each token to its place.
#pragma once

#include "gpu/kernel.h"

namespace lomo::gpu {

constexpr int sort_block = 512, sort_digits = 256;

struct SortArgs {
  const int* ids;              // of the first pass; null in later ones
  const int *rows_in, *tokens_in;
  int *rows_out, *tokens_out;  // [tokens]
  int* counts;                 // [blocks, 256]
  int* base;                   // [256]
  int tokens, rows, row;       // tokens whose id is outside [row, row + rows) sort behind all others, as row `rows`
  int shift;
};

// Passes that rows 0 .. rows need.
constexpr int sort_passes(std::int64_t rows) {
  int passes = 1;
  for (; rows >= sort_digits; rows /= sort_digits) ++passes;
  return passes;
}

#if defined(LOMO_DEVICE)

__device__ __forceinline__ int sort_row(const SortArgs& a, int i) {
  if (a.ids == nullptr) return a.rows_in[i];
  const i64 row = static_cast<i64>(a.ids[i]) - a.row;
  return row < 0 || row >= a.rows ? a.rows : static_cast<int>(row);
}
__device__ __forceinline__ int sort_digit(const SortArgs& a, int row) { return row >> a.shift & (sort_digits - 1); }

__device__ __forceinline__ void sort_count(const SortArgs& a) {
  LOMO_SHARED(int, counts, sort_digits);
  const int t = static_cast<int>(threadIdx.x), first = static_cast<int>(blockIdx.x) * sort_block;
  counts[t] = 0;
  __syncthreads();
  for (int i = first + t; i < first + sort_block && i < a.tokens; i += sort_digits) atomicAdd(&counts[sort_digit(a, sort_row(a, i))], 1);
  __syncthreads();
  a.counts[static_cast<i64>(blockIdx.x) * sort_digits + t] = counts[t];
}

// One block, a thread a digit.
__device__ __forceinline__ void sort_place(const SortArgs& a) {
  LOMO_SHARED(int, warps, 8);
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32, blocks = (a.tokens + sort_block - 1) / sort_block;
  int sum = 0;
  for (int b = 0; b < blocks; ++b) {
    int& at = a.counts[static_cast<i64>(b) * sort_digits + t];
    const int n = at;
    at = sum;
    sum += n;
  }
  int upto = sum;
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const int other = __shfl_up_sync(whole_warp, upto, static_cast<unsigned>(by));
    if (lane >= by) upto += other;
  }
  if (lane == 31) warps[warp] = upto;
  __syncthreads();
  int before = 0;
  for (int w = 0; w < warp; ++w) before += warps[w];
  a.base[t] = before + upto - sum;
}

__device__ __forceinline__ void sort_scatter(const SortArgs& a) {
  LOMO_SHARED(int, next, sort_digits);        // where the block's next token of a digit goes
  LOMO_SHARED(int, counts, 8 * sort_digits);  // of this round's tokens, by warp
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32, first = static_cast<int>(blockIdx.x) * sort_block;
  next[t] = a.base[t] + a.counts[static_cast<i64>(blockIdx.x) * sort_digits + t];
  for (int round = 0; round < sort_block; round += sort_digits) {
#pragma unroll
    for (int w = 0; w < 8; ++w) counts[w * sort_digits + t] = 0;
    __syncthreads();
    const int i = first + round + t;
    const bool there = i < a.tokens;
    const int row = there ? sort_row(a, i) : 0, digit = sort_digit(a, row);
    u32 alike = __ballot_sync(whole_warp, there);
#pragma unroll
    for (int bit = 0; bit < 8; ++bit) {
      const u32 vote = __ballot_sync(whole_warp, (digit >> bit & 1) != 0);
      alike &= (digit >> bit & 1) != 0 ? vote : ~vote;
    }
    const int rank = __popc(alike & ((1u << lane) - 1));
    if (there && rank == 0) counts[warp * sort_digits + digit] = __popc(alike);
    __syncthreads();
    if (there) {
      int to = next[digit] + rank;
      for (int w = 0; w < warp; ++w) to += counts[w * sort_digits + digit];
      a.rows_out[to] = row;
      a.tokens_out[to] = a.ids == nullptr ? a.tokens_in[i] : i;
    }
    __syncthreads();
#pragma unroll
    for (int w = 0; w < 8; ++w) next[t] += counts[w * sort_digits + t];
  }
}

#endif
}  // namespace lomo::gpu
