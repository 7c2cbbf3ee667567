// cache_write: new keys or values into their place in a cache whose fill is known on the device only; past its end is reported, and
// nothing is written.
#include "gpu/kernel.h"

namespace lomo::cache_write {

struct CacheArgs {
  const void* x;
  const int* at;
  void* cache;
  int* fault;
  std::int64_t rows, capacity, width;  // elements of a row
};

#if defined(LOMO_DEVICE)
using namespace gpu;

template <class U> __device__ __forceinline__ void write(const CacheArgs& a) {
  const i64 at = *a.at;
  if (at < 0 || at + a.rows > a.capacity) {
    if (sweep_start() == 0 && atomicCAS(&a.fault[0], 0, 3) == 0) a.fault[1] = static_cast<int>(at), a.fault[2] = static_cast<int>(a.rows), a.fault[3] = static_cast<int>(a.capacity);
    return;
  }
  const U* x = static_cast<const U*>(a.x);
  U* to = static_cast<U*>(a.cache) + at * a.width;
  for (i64 i = sweep_start(); i < a.rows * a.width; i += sweep_stride()) to[i] = x[i];
}
LOMO_KERNEL(cache_write_2, 256, CacheArgs, write<u16>)  // 40 registers, 0 bytes
LOMO_KERNEL(cache_write_4, 256, CacheArgs, write<u32>)  // 32 registers, 0 bytes
#endif

}  // namespace lomo::cache_write

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"

namespace lomo {
namespace {

void write(const Call& call) {
  const Operand &x = call.in(0), &cache = call.inout(0);
  const std::int64_t rows = x.rank == 0 ? 0 : x.dim[0], capacity = cache.rank == 0 ? 0 : cache.dim[0];
  if (rows == 0) return;
  if (capacity == 0 || x.count() / rows != cache.count() / capacity)
    throw Error("BadShape", "cache_write: rows of " + std::to_string(x.count() / rows) + " elements do not fit a cache with rows of " + std::to_string(capacity == 0 ? 0 : cache.count() / capacity));
  const cache_write::CacheArgs args{x.data, call.in(1).as<const int>(), cache.data, fault_cell(call), rows, capacity, x.count() / rows};
  start(call, size_of(x.dtype) == 2 ? "cache_write_2" : "cache_write_4", sweep_grid(std::max<std::int64_t>(1, x.count()), 1), &args);
}

// One dtype, any of two or four bytes.
bool accepts_any(const Signature& s) { return s.n_ins == 2 && s.n_inouts == 1 && s.n_outs == 0 && s.ins[1] == DType::i32 && s.ins[0] == s.inouts[0] && s.ins[0] != DType::u8; }

}  // namespace

extern const Kernel kernels_cache_write[] = {
    {"cache_write", "", accepts_any, write, nullptr},
    {},
};

}  // namespace lomo
#endif
