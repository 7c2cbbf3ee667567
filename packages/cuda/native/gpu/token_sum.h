// The one order of sums over tokens: chunks of token_chunk global rows, ascending, with (closed chunks, open chunk) carried in sums [2, n].
// Chunks are independent of one another, so they are summed side by side into a workspace [chunks, n] and then closed one after another.
#pragma once

#include "gpu/kernel.h"

namespace lomo::gpu {

// The backend's chunk, which plans and traits print. Long enough that a product over one chunk is worth its start and its pass over dW,
// short enough that sums of columns have chunks to go side by side, and no longer than the micro-batches that are usual.
constexpr std::int64_t token_chunk = 1024;

// Chunks that rows start .. start + rows of the step lie in.
constexpr std::int64_t token_chunks(std::int64_t start, std::int64_t rows) {
  return rows == 0 ? 0 : (start + rows - 1) / token_chunk - start / token_chunk + 1;
}

struct TokenSum {
  float* sums;     // [2, n]
  float* partial;  // [chunks, n]
  std::int64_t n, rows, start;
};

#if defined(LOMO_DEVICE)

// Thread (column, chunk) adds term(row, column) of its rows, ascending; the first chunk goes on from what is open unless it begins one.
template <class F> __device__ __forceinline__ void sum_chunk(const TokenSum& a, F term) {
  const i64 column = sweep_start(), chunk = blockIdx.y;
  if (column >= a.n) return;
  const i64 first = (a.start / token_chunk + chunk) * token_chunk, from = first < a.start ? a.start : first;
  const i64 end = first + token_chunk < a.start + a.rows ? first + token_chunk : a.start + a.rows;
  const bool goes_on = from % token_chunk != 0 || from == 0;
  float sum = goes_on ? a.sums[a.n + column] : 0.0f;
  i64 row = from - a.start;
  const i64 last = end - a.start;
  for (; row + 8 <= last; row += 8) {
    float t[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) t[k] = term(row + k, column);
#pragma unroll
    for (int k = 0; k < 8; ++k) sum += t[k];
  }
  for (; row < last; ++row) sum += term(row, column);
  a.partial[chunk * a.n + column] = sum;
}

// Thread (column) closes chunk after chunk.
__device__ __forceinline__ void close_chunks(const TokenSum& a) {
  const i64 column = sweep_start();
  if (column >= a.n) return;
  float closed = a.sums[column], open = a.sums[a.n + column];
  const i64 chunks = token_chunks(a.start, a.rows);
  for (i64 c = 0; c < chunks; ++c) {
    const i64 first = (a.start / token_chunk + c) * token_chunk, from = first < a.start ? a.start : first;
    if (from % token_chunk == 0 && from != 0) closed += open;
    open = a.partial[c * a.n + column];
  }
  a.sums[column] = closed;
  a.sums[a.n + column] = open;
}

#endif
}  // namespace lomo::gpu
