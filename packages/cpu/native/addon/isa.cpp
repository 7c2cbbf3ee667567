// Chooses the kernel set once, at load, by what the processor says it can do.
#include "addon/isa.h"

#include "addon/tables.h"

namespace lomo {
namespace {

bool runs(const std::string& isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
  if (isa == "avx2") return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (isa == "avx512") return avx512;
  if (isa == "avx512_bf16") return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return isa == "portable";
}

}  // namespace

const KernelSet& choose_kernels(const std::string& wanted) {
  const KernelSet* best = nullptr;
  std::string can;
  for (const KernelSet* set = kernel_sets; set->isa != nullptr; ++set) {
    if (!runs(set->isa)) continue;
    can += (can.empty() ? "" : ", ") + std::string(set->isa);
    if (wanted.empty() || wanted == set->isa) best = set;
  }
  if (best == nullptr) throw Error("UnsupportedIsa", "isa '" + wanted + "' does not run here; this machine and build have: " + can);
  return *best;
}

}  // namespace lomo
