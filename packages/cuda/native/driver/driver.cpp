// Opens libcuda, and turns its results into errors.
#include "driver/driver.h"

#include "lomo/error.h"

namespace lomo {
namespace {

Library open(const std::string& path) {
  try {
    return Library({"the CUDA driver", path, {"libcuda.so.1"},
                    {"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib", "/usr/local/cuda/compat", "/run/opengl-driver/lib"},
                    "Is there an NVIDIA GPU here, and is its driver (580 or newer) installed? `nvidia-smi` tells; in a container, start it with --gpus all."});
  } catch (const Error& e) {
    if (e.code() != "MissingLibrary") throw;
    throw Error("MissingDriver", e.text(), e.file(), e.line());
  }
}

// The context is lost: nothing of it works any more, in this process.
bool sticky(cu::Result r) { return r == 214 || (r >= 700 && r < 800 && r != 701 && r != 704 && r != 705 && r != 708 && r != 709 && r != 711 && r != 712 && r != 713) || r == 999; }

}  // namespace

Driver::Driver(const std::string& path) : library_(open(path)) {
#define X(name, symbol_name, parameters) name = reinterpret_cast<decltype(name)>(library_.symbol(symbol_name));
  LOMO_DRIVER_ENTRIES(X)
#undef X
  const auto version_text = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  // Asked before cuInit, which an old driver may refuse for its own reasons.
  if (driver_version(&version_) != cu::success) version_ = 0;
  if (version_ > 0 && version_ < oldest_driver)
    throw Error("DriverTooOld", "cuda: the driver " + library_.path() + " is for CUDA " + version_text(version_) + "; lomo's kernels need " + version_text(oldest_driver) + ": install the NVIDIA driver 580 or newer");
  const cu::Result r = init(0);
  if (r == cu::no_device) throw Error("NoDevice", "cuda: the driver sees no GPU: is one installed, and does CUDA_VISIBLE_DEVICES hide it? `nvidia-smi -L` lists them");
  if (r == cu::system_driver_mismatch) throw Error("DriverMismatch", "cuda: the driver's library and its kernel module are of different versions: reboot, or reload the nvidia module");
  check(r, "cuInit");
  check(device_count(&devices_), "cuDeviceGetCount");
  if (devices_ == 0) throw Error("NoDevice", "cuda: the driver sees no GPU: does CUDA_VISIBLE_DEVICES hide it? `nvidia-smi -L` lists them");
}

std::string Driver::spell(cu::Result result) const {
  const char *name = nullptr, *text = nullptr;
  if (error_name(result, &name) != cu::success || name == nullptr) name = "unknown result";
  if (error_string(result, &text) != cu::success || text == nullptr) text = "no description";
  return std::string(name) + " (" + std::to_string(result) + "): " + text;
}

void Driver::check(cu::Result result, const char* doing, const std::source_location& at) const {
  if (result == cu::success) return;
  const std::string what = std::string("cuda: ") + doing + ": " + spell(result);
  const auto raise = [&](const char* code, const std::string& next) { throw Error(code, what + next, at.file_name(), static_cast<int>(at.line())); };
  if (result == cu::out_of_memory) raise("OutOfMemory", "; `nvidia-smi` shows who holds the GPU's memory");
  if (result == cu::device_unavailable) raise("DeviceUnavailable", "; another process holds the GPU alone (compute mode EXCLUSIVE_PROCESS): wait for it, or choose another GPU");
  if (result == cu::no_binary_for_gpu || result == cu::invalid_image || result == cu::unsupported_ptx)
    raise("WrongArchitecture", "; this build's kernels do not run on this GPU: build @lomo/cuda with its architecture");
  if (sticky(result))
    raise("StickyDeviceError", "; work enqueued earlier failed on the GPU, and nothing more runs in this process: start again from the last checkpoint, with debug: 'sync' to see which kernel it is");
  raise("CudaError", "");
}

}  // namespace lomo
