// Device code into functions, functions into launches.
#include "addon/context.h"

#include "addon/device.h"
#include "addon/launch.h"
#include "addon/tables.h"

namespace lomo {

Functions::~Functions() {
  for (const cu::Module m : modules_) driver_.module_unload(m);
}

void Functions::load(const std::string& gpu) {
  if (*architectures == 0 && gpu != "host double")
    throw Error("MissingDeviceCode", "cuda: this lomo_cuda.node was built without nvcc and holds no kernels for a GPU: install nvcc (node scripts/nvcc.mjs install), then build it again");
  for (const DeviceCode* code = device_code; code->file != nullptr; ++code) {
    cu::Module m = nullptr;
    const cu::Result r = driver_.module_load(&m, code->image);
    if (r == cu::no_binary_for_gpu || r == cu::invalid_image || r == cu::unsupported_ptx)
      throw Error("WrongArchitecture", "cuda: " + std::string(code->file) + ".cu has no code for " + gpu + " (" + driver_.spell(r) + "); this build has " + architectures + ": build @lomo/cuda with this GPU's architecture");
    driver_.check(r, "cuModuleLoadData");
    modules_.push_back(m);
  }
}

cu::Function Functions::find(std::string_view name, unsigned shared) {
  auto known = found_.find(name);
  if (known == found_.end()) {
    const std::string text(name);
    cu::Function f = nullptr;
    for (std::size_t i = 0; i < modules_.size() && f == nullptr; ++i) {
      const cu::Result r = driver_.module_function(&f, modules_[i], text.c_str());
      if (r == cu::not_found) f = nullptr;
      else driver_.check(r, "cuModuleGetFunction");
    }
    if (f == nullptr) throw Error("MissingKernel", "cuda: the device code has no kernel " + text + ": build @lomo/cuda again");
    known = found_.emplace(text, Found{f}).first;
  }
  Found& found = known->second;
  if (shared > found.shared) {
    driver_.check(driver_.function_set(found.function, cu::function_max_dynamic_shared, static_cast<int>(shared)), "cuFuncSetAttribute");
    found.shared = shared;
  }
  return found.function;
}

void start(const Call& call, const char* kernel, const Grid& grid, const void* args) {
  if (grid.blocks == 0 || grid.rows == 0) return;
  Context& c = *call.context;
  if (grid.blocks > 0x7fffffff || grid.rows > 65535) throw Error("BadShape", std::string(kernel) + ": a grid of " + std::to_string(grid.blocks) + " x " + std::to_string(grid.rows) + " blocks is more than a GPU takes");
  const cu::Function f = c.functions.find(kernel, grid.shared);
  void* parameters[] = {const_cast<void*>(args)};
  c.driver.check(c.driver.launch(f, static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.rows), 1, grid.threads, 1, 1, grid.shared, c.stream, parameters, nullptr), kernel);
  ++c.launches;
}

std::int32_t* fault_cell(const Call& call) { return call.context->fault; }

void copy_on_device(const Call& call, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  const Context& c = *call.context;
  c.driver.check(c.driver.copy(reinterpret_cast<cu::Address>(to), reinterpret_cast<cu::Address>(from), bytes, c.stream), "cuMemcpyAsync");
}

void zero_on_device(const Call& call, void* to, std::size_t bytes) {
  if (bytes == 0) return;
  const Context& c = *call.context;
  c.driver.check(c.driver.memset8(reinterpret_cast<cu::Address>(to), 0, bytes, c.stream), "cuMemsetD8Async");
}

}  // namespace lomo
