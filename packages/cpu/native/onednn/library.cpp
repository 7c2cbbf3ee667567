// Opens oneDNN and binds the entry points of its version.
#include "onednn/library.h"

#include <dlfcn.h>
#include <link.h>

#include <vector>

#include "lomo/error.h"

namespace lomo::onednn {
namespace {

template <class F> void bind_one(void* handle, const std::string& path, F*& pointer, const char* symbol) {
  pointer = reinterpret_cast<F*>(dlsym(handle, symbol));
  if (pointer == nullptr) throw Error("WrongLibrary", path + " has no " + symbol + ": lomo needs oneDNN 2.6 or 3.x");
}

}  // namespace

Library::Library(const std::string& path) {
  const std::vector<std::string> candidates = path.empty() ? std::vector<std::string>{"libdnnl.so.2", "libdnnl.so.3", "libdnnl.so"} : std::vector<std::string>{path};
  std::string tried;
  for (const auto& candidate : candidates) {
    handle_ = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      path_ = candidate;
      break;
    }
    const char* why = dlerror();
    tried += "\n  " + candidate + ": " + (why == nullptr ? "no reason given" : why);
  }
  if (handle_ == nullptr)
    throw Error("MissingLibrary", "oneDNN was not found. Install it (Debian, Ubuntu: apt-get install libdnnl2) or pass cpu({ oneDnn: '/path/to/libdnnl.so' }). Tried:" + tried);
  if (link_map* map = nullptr; dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 && map != nullptr && map->l_name[0] != 0) path_ = map->l_name;
  try {
    bind();
    check(api_.engine_create(&engine_, kind_cpu, 0), "dnnl_engine_create");
    check(api_.set_primitive_cache_capacity(0), "dnnl_set_primitive_cache_capacity");  // ours keeps what is used; theirs would keep it twice
  } catch (...) {
    if (engine_ != nullptr) api_.engine_destroy(engine_);
    dlclose(handle_);
    throw;
  }
}

// The library stays mapped: its OpenMP team may outlive us, and opening it again costs nothing.
Library::~Library() { api_.engine_destroy(engine_); }

void Library::bind() {
  const auto get = [this](auto*& pointer, const char* symbol) { bind_one(handle_, path_, pointer, symbol); };
  get(api_.version, "dnnl_version");
  version_ = *api_.version();
  if (version_.major != 2 && version_.major != 3) throw Error("WrongLibrary", path_ + " is oneDNN " + version() + ": lomo speaks 2.6 and 3.x");
  if (version_.cpu_runtime != runtime_openmp && version_.cpu_runtime != runtime_sequential)
    throw Error("WrongLibrary", path_ + " was built for another threading runtime than OpenMP, so its results would depend on chance; use a build with GNU OpenMP");
  get(api_.engine_create, "dnnl_engine_create");
  get(api_.engine_destroy, "dnnl_engine_destroy");
  get(api_.stream_create, "dnnl_stream_create");
  get(api_.stream_wait, "dnnl_stream_wait");
  get(api_.stream_destroy, "dnnl_stream_destroy");
  get(api_.attr_create, "dnnl_primitive_attr_create");
  get(api_.attr_destroy, "dnnl_primitive_attr_destroy");
  get(api_.attr_set_scratchpad_mode, "dnnl_primitive_attr_set_scratchpad_mode");
  get(api_.attr_set_post_ops, "dnnl_primitive_attr_set_post_ops");
  get(api_.post_ops_create, "dnnl_post_ops_create");
  get(api_.post_ops_destroy, "dnnl_post_ops_destroy");
  get(api_.primitive_desc_query, "dnnl_primitive_desc_query");
  get(api_.primitive_desc_query_md, "dnnl_primitive_desc_query_md");
  get(api_.primitive_desc_destroy, "dnnl_primitive_desc_destroy");
  get(api_.primitive_create, "dnnl_primitive_create");
  get(api_.primitive_execute, "dnnl_primitive_execute");
  get(api_.primitive_destroy, "dnnl_primitive_destroy");
  get(api_.memory_desc_get_size, "dnnl_memory_desc_get_size");
  get(api_.memory_create, "dnnl_memory_create");
  get(api_.memory_set_data_handle, "dnnl_memory_set_data_handle");
  get(api_.memory_destroy, "dnnl_memory_destroy");
  get(api_.set_primitive_cache_capacity, "dnnl_set_primitive_cache_capacity");
  get(api_.effective_cpu_isa, "dnnl_get_effective_cpu_isa");
  if (version_.major == 2) {
    get(api_.memory_desc_init_by_strides, "dnnl_memory_desc_init_by_strides");
    get(api_.matmul_desc_init, "dnnl_matmul_desc_init");
    get(api_.primitive_desc_create, "dnnl_primitive_desc_create");
    get(api_.post_ops_append_sum_v2, "dnnl_post_ops_append_sum");
    get(api_.post_ops_append_eltwise_v2, "dnnl_post_ops_append_eltwise");
  } else {
    get(api_.memory_desc_create_with_strides, "dnnl_memory_desc_create_with_strides");
    get(api_.memory_desc_destroy, "dnnl_memory_desc_destroy");
    get(api_.matmul_primitive_desc_create, "dnnl_matmul_primitive_desc_create");
    get(api_.post_ops_append_sum_v3, "dnnl_post_ops_append_sum");
    get(api_.post_ops_append_eltwise_v3, "dnnl_post_ops_append_eltwise");
  }
}

std::string Library::version() const {
  return std::to_string(version_.major) + "." + std::to_string(version_.minor) + "." + std::to_string(version_.patch);
}

void Library::check(Status status, const char* call) {
  constexpr const char* names[] = {"success", "out of memory", "invalid arguments", "unimplemented", "last implementation reached", "runtime error", "not required"};
  if (status != 0) throw Error("LibraryError", std::string("oneDNN: ") + call + ": " + (status > 0 && status < 7 ? names[status] : "unknown status"));
}

}  // namespace lomo::onednn
