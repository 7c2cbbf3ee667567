// The host's side of a .cu file: which dtypes a kernel takes, its name with them, how its grid is cut, the launch itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>

#include "lomo/accepts.h"
#include "lomo/error.h"
#include "lomo/kernel.h"
#include "lomo/registry.h"

namespace lomo {

struct Grid {
  std::int64_t blocks = 1, rows = 1;  // x and y
  unsigned threads = 256;
  unsigned shared = 0;  // dynamic bytes
};

// Enqueues on the stream of the call's queue; nothing where the grid is empty. `kernel` as LOMO_KERNEL names it. Throws CudaError.
void start(const Call& call, const char* kernel, const Grid& grid, const void* args);

// Enqueued on the call's stream.
void copy_on_device(const Call& call, void* to, const void* from, std::size_t bytes);
void zero_on_device(const Call& call, void* to, std::size_t bytes);

// Where a kernel reports data it refuses: i32 [8], zero while all is well (device.h reads it).
std::int32_t* fault_cell(const Call& call);

// 'add_bf16' of ("add", bf16).
class KernelName {
 public:
  KernelName(const char* base, DType a) { std::snprintf(text_, sizeof text_, "%s_%s", base, name_of(a)); }
  KernelName(const char* base, DType a, DType b) { std::snprintf(text_, sizeof text_, "%s_%s_%s", base, name_of(a), name_of(b)); }
  operator const char*() const { return text_; }

 private:
  char text_[64];
};

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// For gpu/storage.h's sweep over n elements, `each` a thread at a time.
inline Grid sweep_grid(std::int64_t n, std::int64_t each = 8) { return {std::min<std::int64_t>(ceil_div(n, 256 * each), 2048)}; }
inline Grid row_grid(std::int64_t rows) { return {std::min<std::int64_t>(rows, std::int64_t{1} << 20)}; }
// The same with a warp for every 256 columns: what has few columns (a head's norm) leaves no threads idle. The order of a row's sums
// depends on its columns alone.
inline Grid row_grid(std::int64_t rows, std::int64_t columns) {
  Grid grid = row_grid(rows);
  grid.threads = 32 * static_cast<unsigned>(std::clamp<std::int64_t>(ceil_div(columns, 256), 1, 8));
  return grid;
}

// 16-byte aligned, all of them.
inline bool wide(std::initializer_list<const void*> pointers) {
  for (const void* p : pointers)
    if (reinterpret_cast<std::uintptr_t>(p) % 16 != 0) return false;
  return true;
}

// Sizes a kernel relies on: `got` elements in the operand called `what`.
inline void same_size(const char* op, const char* what, std::int64_t got, std::int64_t want) {
  if (got != want) throw Error("BadShape", std::string(op) + ": " + what + " has " + std::to_string(got) + " elements, the other operands need " + std::to_string(want));
}

}  // namespace lomo
