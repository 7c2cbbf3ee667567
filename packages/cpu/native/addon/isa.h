// Which instruction set this machine runs, and the kernel set compiled for it.
#pragma once

#include <string>

#include "lomo/registry.h"

namespace lomo {

// The set called `wanted` ('portable', 'avx2', 'avx512', 'avx512_bf16'), or the best this machine runs where `wanted` is empty.
// Throws UnsupportedIsa where the machine or this build lacks it.
const KernelSet& choose_kernels(const std::string& wanted);

}  // namespace lomo
