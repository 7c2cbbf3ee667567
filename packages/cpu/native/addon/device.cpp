// Runs kernels on this machine's cores.
#include "addon/device.h"

#include <omp.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "addon/isa.h"
#include "addon/memory.h"
#include "onednn/products.h"

namespace lomo {
namespace {

bool has_nan(const Operand& o) {
  const std::int64_t n = o.count();
  for (std::int64_t i = 0; i < n; ++i) {
    if (o.dtype == DType::f32 && std::isnan(o.as<float>()[i])) return true;
    if (o.dtype == DType::bf16 && (o.as<std::uint16_t>()[i] & 0x7fff) > 0x7f80) return true;
  }
  return false;
}

void refuse_nan(const Call& call) {
  for (std::int32_t i = call.ins; i < call.ins + call.inouts + call.outs; ++i) {
    const Operand& o = call.operands[i];
    if ((o.dtype == DType::f32 || o.dtype == DType::bf16) && has_nan(o))
      throw Error("NotANumber", std::string(i < call.ins + call.inouts ? "inout " : "out ") + std::to_string(i < call.ins + call.inouts ? i - call.ins : i - call.ins - call.inouts) + " holds a NaN after the kernel ran");
  }
}

std::string text(const Napi::Object& options, const char* name) { return options.Get(name).As<Napi::String>().Utf8Value(); }

}  // namespace

CpuDevice::CpuDevice(const Napi::Object& options)
    : set_(choose_kernels(text(options, "isa"))), threads_(options.Get("threads").As<Napi::Number>().Int32Value()), context_(new Context{{text(options, "oneDnn"), threads_}}) {}

CpuDevice::~CpuDevice() = default;

std::uint64_t CpuDevice::allocations() const { return context_->products.made(); }

Napi::Value CpuDevice::facts(Napi::Env env) const {
  const auto& library = context_->products.library();
  auto o = Napi::Object::New(env);
  o.Set("isa", set_.isa);
  o.Set("threads", threads_);
  auto libraries = Napi::Array::New(env, 1);
  auto entry = Napi::Object::New(env);
  entry.Set("name", "oneDNN");
  entry.Set("version", library.version());
  entry.Set("path", library.path());
  libraries.Set(std::uint32_t{0}, entry);
  o.Set("libraries", libraries);
  return o;
}

Reservation CpuDevice::reserve(std::int32_t place, double bytes, std::size_t reserved) {
  Reservation r = reserve_host(bytes, reserved);
  r.place = place;
  return r;
}

void CpuDevice::release(const Reservation& r) { release_host(r); }

std::size_t CpuDevice::workspace(const Kernel& kernel, const Call& call) { return kernel.workspace == nullptr ? 0 : kernel.workspace(call); }

void CpuDevice::begin() { omp_set_num_threads(threads_); }

void CpuDevice::run(Command& c) {
  c.kernel->run(c.call);
  if (c.check) refuse_nan(c.call);
}

void CpuDevice::copy(void* to, const void* from, std::size_t bytes, CommandKind) { std::memmove(to, from, bytes); }

}  // namespace lomo
