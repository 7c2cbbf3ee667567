// The client's side of NVTX 3, written from its protocol: which tables an injection library asks for, and where it writes.
#include "addon/nvtx.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "lomo/error.h"

namespace lomo {
namespace {

using Function = void (*)();

constexpr std::uint32_t table_callbacks = 1, table_version = 3, protocol = 3;
constexpr int modules = 7;               // 1 core, 2 CUDA, 3 OpenCL, 4 CUDA runtime, 5 core with domains, 6 synchronisation
constexpr std::size_t functions = 17;    // of the largest module, and one more
constexpr unsigned sizes[modules] = {0, 16, 9, 15, 7, 16, 7};  // functions of each module, counted from 0, which is none
constexpr int core = 1, range_push = 9, range_pop = 11;

// The tables live as long as the process: so does the library that may write into them.
struct Tables {
  std::array<std::array<Function, functions>, modules> functions_of{};
  std::array<std::array<Function*, functions>, modules> slots{};
  Tables() {
    for (int m = 1; m < modules; ++m)
      for (unsigned f = 1; f < sizes[m]; ++f) slots[static_cast<std::size_t>(m)][f] = &functions_of[static_cast<std::size_t>(m)][f];
  }
};
Tables& tables() {
  static Tables* const t = new Tables;
  return *t;
}

struct CallbacksTable {
  std::size_t struct_size;
  int (*module_functions)(int module, Function*** table, unsigned* size);
};
struct VersionTable {
  std::size_t struct_size;
  std::uint32_t version, reserved;
  void (*set_injection_version)(std::uint32_t);
};

int module_functions(int module, Function*** table, unsigned* size) {
  if (module < 1 || module >= modules) return 0;
  if (size != nullptr) *size = sizes[module];
  if (table != nullptr) *table = tables().slots[static_cast<std::size_t>(module)].data();
  return 1;
}
void set_injection_version(std::uint32_t) {}

const void* export_table(std::uint32_t which) {
  static const CallbacksTable callbacks{sizeof(CallbacksTable), module_functions};
  static const VersionTable version{sizeof(VersionTable), protocol, 0, set_injection_version};
  return which == table_callbacks ? static_cast<const void*>(&callbacks) : which == table_version ? &version : nullptr;
}

}  // namespace

Nvtx::Nvtx(const std::string& path) {
  if (path.empty()) return;
  library_ = std::make_unique<Library>(Wanted{"the profiler's NVTX injection library", path, {}, {}, "A profiler names it in NVTX_INJECTION64_PATH; leave `nvtx` out where none runs."});
  using Initialize = int (*)(const void* (*)(std::uint32_t));
  const auto initialize = reinterpret_cast<Initialize>(library_->symbol("InitializeInjectionNvtx2"));
  const auto& found = tables().functions_of[core];
  if (initialize(export_table) == 0 || found[range_push] == nullptr || found[range_pop] == nullptr)
    throw Error("WrongLibrary", "cuda: " + path + " takes no NVTX ranges: is it the injection library of a profiler that is attached?");
  push_ = reinterpret_cast<int (*)(const char*)>(found[range_push]);
  pop_ = reinterpret_cast<int (*)()>(found[range_pop]);
}

}  // namespace lomo
