// Test only: an NVTX injection library, as a profiler brings one. It writes every range it is told of into the file LOMO_DOUBLE_NVTX names.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

void note(const char* what, const char* name) {
  const char* path = std::getenv("LOMO_DOUBLE_NVTX");
  std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "a");
  if (file == nullptr) return;
  std::fprintf(file, "%s%s\n", what, name);
  std::fclose(file);
}
int push(const char* name) {
  note("push ", name);
  return 0;
}
int pop() {
  note("pop", "");
  return 0;
}

struct Callbacks {
  std::size_t struct_size;
  int (*module_functions)(int module, void (***table[])(), unsigned* size);
};
struct Version {
  std::size_t struct_size;
  std::uint32_t version, reserved;
  void (*set)(std::uint32_t);
};

}  // namespace

extern "C" __attribute__((visibility("default"))) int InitializeInjectionNvtx2(const void* (*table)(std::uint32_t)) {
  const auto* version = static_cast<const Version*>(table(3));
  const auto* callbacks = static_cast<const Callbacks*>(table(1));
  if (version == nullptr || version->struct_size < sizeof *version || version->version < 2 || callbacks == nullptr || callbacks->struct_size < sizeof *callbacks) return 0;
  void (***functions)() = nullptr;
  unsigned size = 0;
  if (callbacks->module_functions(1, &functions, &size) == 0 || size <= 11) return 0;
  *functions[9] = reinterpret_cast<void (*)()>(push);
  *functions[11] = reinterpret_cast<void (*)()>(pop);
  return 1;
}
