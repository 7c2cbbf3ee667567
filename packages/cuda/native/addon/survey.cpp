// Questions to the driver and to NVML that need no backend.
#include "addon/survey.h"

#include "addon/border.h"
#include "driver/driver.h"
#include "nvml/nvml.h"

namespace lomo {
namespace {

std::string text(const Napi::Object& options, const char* name) { return options.Get(name).As<Napi::String>().Utf8Value(); }

// The GPU that options.device names. Throws BadOption.
cu::Device device_of(const Driver& driver, const Napi::Object& options) {
  const int ordinal = options.Get("device").As<Napi::Number>().Int32Value();
  if (ordinal < 0 || ordinal >= driver.devices())
    throw Error("BadOption", "cuda: device " + std::to_string(ordinal) + " is not one of the " + std::to_string(driver.devices()) + " GPUs that the driver sees, counted from 0");
  cu::Device device = 0;
  driver.check(driver.device_get(&device, ordinal), "cuDeviceGet");
  return device;
}

std::string bus_of(const Driver& driver, cu::Device device) {
  char bus[32] = "";
  driver.check(driver.device_bus(bus, sizeof bus, device), "cuDeviceGetPCIBusId");
  return bus;
}

std::string version_of(const Driver& driver) { return std::to_string(driver.version() / 1000) + "." + std::to_string(driver.version() % 1000 / 10); }

}  // namespace

Napi::Value survey(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return at_border(env, [&]() -> Napi::Value {
    const Driver driver(text(info[0].As<Napi::Object>(), "driver"));
    auto gpus = Napi::Array::New(env);
    for (int i = 0; i < driver.devices(); ++i) {
      cu::Device device = 0;
      driver.check(driver.device_get(&device, i), "cuDeviceGet");
      char name[256] = "";
      driver.check(driver.device_name(name, sizeof name, device), "cuDeviceGetName");
      int major = 0, minor = 0, multiprocessors = 0;
      driver.check(driver.device_attribute(&major, cu::capability_major, device), "cuDeviceGetAttribute");
      driver.check(driver.device_attribute(&minor, cu::capability_minor, device), "cuDeviceGetAttribute");
      driver.check(driver.device_attribute(&multiprocessors, cu::multiprocessors, device), "cuDeviceGetAttribute");
      std::size_t memory = 0;
      driver.check(driver.device_memory(&memory, device), "cuDeviceTotalMem_v2");
      auto gpu = Napi::Object::New(env);
      gpu.Set("name", name);
      gpu.Set("architecture", "sm_" + std::to_string(major) + std::to_string(minor));
      gpu.Set("multiprocessors", multiprocessors);
      gpu.Set("memory", static_cast<double>(memory));
      gpu.Set("bus", bus_of(driver, device));
      gpus.Set(static_cast<std::uint32_t>(i), gpu);
    }
    auto o = Napi::Object::New(env);
    o.Set("path", driver.path());
    o.Set("version", version_of(driver));
    o.Set("gpus", gpus);
    return o;
  });
}

Napi::Value memory_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return at_border(env, [&]() -> Napi::Value {
    const auto options = info[0].As<Napi::Object>();
    const Driver driver(text(options, "driver"));
    const cu::Device device = device_of(driver, options);
    // A backend's context is the same one: it stays with that backend.
    cu::Context context = nullptr;
    driver.check(driver.context_retain(&context, device), "cuDevicePrimaryCtxRetain");
    std::size_t free = 0, total = 0;
    cu::Result result = driver.context_set(context);
    if (result == cu::success) result = driver.memory_info(&free, &total);
    driver.context_set(nullptr);
    driver.context_release(device);
    driver.check(result, "cuMemGetInfo_v2");
    auto o = Napi::Object::New(env);
    o.Set("free", static_cast<double>(free));
    o.Set("total", static_cast<double>(total));
    return o;
  });
}

Napi::Value occupancy(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return at_border(env, [&]() -> Napi::Value {
    const auto options = info[0].As<Napi::Object>();
    const Driver driver(text(options, "driver"));
    const std::string bus = bus_of(driver, device_of(driver, options));
    const Nvml nvml(text(options, "nvml"));
    const Occupancy found = nvml.occupancy(bus);
    auto holders = Napi::Array::New(env);
    for (std::uint32_t i = 0; i < found.holders.size(); ++i) {
      const Holder& h = found.holders[i];
      auto holder = Napi::Object::New(env);
      holder.Set("pid", h.pid);
      holder.Set("name", h.name);
      holder.Set("bytes", h.bytes);
      holders.Set(i, holder);
    }
    auto o = Napi::Object::New(env);
    o.Set("path", nvml.path());
    o.Set("version", nvml.driver_version());
    o.Set("free", found.free);
    o.Set("total", found.total);
    o.Set("holders", holders);
    return o;
  });
}

}  // namespace lomo
