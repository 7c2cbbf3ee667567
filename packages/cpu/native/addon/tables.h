// The kernel tables CMake generates: one set per instruction set, plainest first, ended by a row without name.
#pragma once

#include "lomo/registry.h"

namespace lomo {
extern const KernelSet kernel_sets[];
}
