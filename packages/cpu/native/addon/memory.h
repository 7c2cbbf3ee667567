// Host memory straight from the system: zero-filled, page-aligned (2 MiB where huge pages help), given back at once when released.
#pragma once

#include <cstddef>

#include "lomo/command.h"

namespace lomo {

// `bytes` more, where `reserved` are held already. Throws OutOfMemory with both sizes and the limit.
Reservation reserve_host(double bytes, std::size_t reserved);
void release_host(const Reservation& r);

}  // namespace lomo
