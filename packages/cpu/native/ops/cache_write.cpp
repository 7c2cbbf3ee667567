// cache_write: new keys or values into their place in a cache whose fill is known on the device only.
#include "dispatch.h"

namespace lomo::LOMO_ISA {
namespace {

void cache_write(const Call& call) {
  const Operand &x = call.in(0), &cache = call.inout(0);
  const std::int64_t tokens = x.rank == 0 ? 0 : x.dim[0], capacity = cache.rank == 0 ? 0 : cache.dim[0];
  if (tokens == 0) return;
  LOMO_REQUIRE(capacity > 0 && x.count() / tokens == cache.count() / capacity, "BadShape", "cache_write: rows of %lld elements do not fit a cache with rows of %lld",
               static_cast<long long>(x.count() / tokens), static_cast<long long>(capacity > 0 ? cache.count() / capacity : 0));
  const std::int64_t at = *call.in(1).as<const std::int32_t>();
  LOMO_REQUIRE(at >= 0 && at + tokens <= capacity, "CacheFull", "cache_write: rows %lld to %lld do not fit a cache of %lld rows", static_cast<long long>(at),
               static_cast<long long>(at + tokens), static_cast<long long>(capacity));
  const std::size_t row = x.bytes() / static_cast<std::size_t>(tokens);
  std::memcpy(cache.as<char>() + static_cast<std::size_t>(at) * row, x.data, x.bytes());
}

}  // namespace

extern const Kernel kernels_cache_write[];
const Kernel kernels_cache_write[] = {
    {"cache_write", "", accepts<"bi|b|">, cache_write, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
