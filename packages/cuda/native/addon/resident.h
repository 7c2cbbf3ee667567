// How many rows of a weight gradient stay in the L2 cache while sums over tokens pass over them chunk by chunk: a pure table.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lomo {

struct Cache {
  int architecture;         // the table's row is the last one that is not newer
  std::int64_t mebibytes;   // of L2, of the smallest GPU of the kind that trains: A100, RTX 3090, RTX 4090, H100, B200, RTX 5090
  std::int64_t processors;  // streaming multiprocessors
};
constexpr Cache caches[] = {{80, 40, 108}, {86, 6, 82}, {89, 72, 128}, {90, 50, 132}, {100, 126, 148}, {120, 96, 170}};

// Rows of f32 [rows, n] that take at most 2/5 of L2, a multiple of 128, at least 128; of those, the most that leave the fewest
// multiprocessors idle where a block makes 128 x 256 elements. No result depends on it.
constexpr std::int64_t resident_rows(int architecture, std::int64_t n) {
  Cache cache = caches[0];
  for (const Cache& c : caches)
    if (c.architecture <= architecture) cache = c;
  const std::int64_t most = std::max<std::int64_t>((cache.mebibytes << 20) * 2 / 5 / (4 * std::max<std::int64_t>(n, 1)) / 128, 1);
  const std::int64_t across = (n + 255) / 256;
  std::int64_t best = 1, best_blocks = 0, best_rounds = 1;
  for (std::int64_t tiles = 1; tiles <= most && tiles <= 512; ++tiles) {
    const std::int64_t blocks = tiles * across, rounds = (blocks + cache.processors - 1) / cache.processors;
    if (blocks * best_rounds < best_blocks * rounds) continue;
    best = tiles, best_blocks = blocks, best_rounds = rounds;
  }
  return 128 * best;
}
static_assert(resident_rows(90, 4096) == 1024 && resident_rows(86, 4096) == 128);

}  // namespace lomo
