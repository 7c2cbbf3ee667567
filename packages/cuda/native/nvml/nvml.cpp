// Opens libnvidia-ml, and reads who is on a GPU.
#include "nvml/nvml.h"

#include <fstream>

#include "lomo/error.h"

namespace lomo {
namespace {

std::string name_by_system(unsigned pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

}  // namespace

Nvml::Nvml(const std::string& path)
    : library_({"NVML", path, {"libnvidia-ml.so.1"},
                {"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib", "/run/opengl-driver/lib"},
                "It comes with the NVIDIA driver; in a container, NVIDIA_DRIVER_CAPABILITIES must name utility."}) {
#define X(name, symbol_name, parameters) name = reinterpret_cast<decltype(name)>(library_.symbol(symbol_name));
  LOMO_NVML_ENTRIES(X)
#undef X
  check(init(), "nvmlInit_v2");
}

Nvml::~Nvml() { shutdown(); }

void Nvml::check(ml::Result result, const char* doing) const {
  if (result != ml::success) throw Error("NvmlError", std::string("cuda: ") + doing + " ended with status " + std::to_string(result) + " (" + path() + ")");
}

std::string Nvml::driver_version() const {
  char text[96] = "";
  check(driver_version_text(text, sizeof text), "nvmlSystemGetDriverVersion");
  return text;
}

Occupancy Nvml::occupancy(const std::string& bus) const {
  ml::Device device = nullptr;
  check(device_by_bus(bus.c_str(), &device), "nvmlDeviceGetHandleByPciBusId_v2");
  ml::Memory memory{};
  check(device_memory(device, &memory), "nvmlDeviceGetMemoryInfo");
  Occupancy o{static_cast<double>(memory.total), static_cast<double>(memory.free), {}};
  for (const auto list : {compute_processes, graphics_processes}) {
    std::vector<ml::Process> found(64);
    auto count = static_cast<unsigned>(found.size());
    ml::Result result = list(device, &count, found.data());
    if (result == ml::insufficient_size) {
      count += 16;  // some may start meanwhile
      found.resize(count);
      result = list(device, &count, found.data());
    }
    if (result != ml::success) continue;  // a system that does not tell: WSL, a virtual GPU
    for (unsigned i = 0; i < count; ++i) {
      const ml::Process& p = found[i];
      bool known = false;
      for (const Holder& h : o.holders) known = known || h.pid == p.pid;
      if (known) continue;
      char name[512] = "";
      if (process_name(p.pid, name, sizeof name) != ml::success) name[0] = 0;
      o.holders.push_back({p.pid, *name == 0 ? name_by_system(p.pid) : std::string(name), p.bytes == ~0ULL ? -1.0 : static_cast<double>(p.bytes)});
    }
  }
  return o;
}

}  // namespace lomo
