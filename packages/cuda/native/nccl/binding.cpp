// Communicators at the language border.
#include "nccl/binding.h"

#include <cstring>

#include "addon/border.h"
#include "addon/device.h"
#include "lomo/verbs.h"

namespace lomo {
namespace {

using Backend = Verbs<CudaDevice>;

template <Napi::Value (*verb)(const Napi::CallbackInfo&, CudaDevice&)> Napi::Value on_device(const Napi::CallbackInfo& info) {
  return at_border(info.Env(), [&] { return verb(info, Backend::Unwrap(info[0].As<Napi::Object>())->device()); });
}

Napi::Value library(const Napi::CallbackInfo& info, CudaDevice& device) {
  const Nccl& nccl = device.context()->communicators.nccl();
  auto o = Napi::Object::New(info.Env());
  o.Set("name", "NCCL");
  o.Set("version", nccl.version());
  o.Set("path", nccl.path());
  return o;
}

Napi::Value communicator_id(const Napi::CallbackInfo& info, CudaDevice& device) {
  const nccl::UniqueId id = device.context()->communicators.nccl().unique_id();
  auto bytes = Napi::Uint8Array::New(info.Env(), sizeof id.bytes);
  std::memcpy(bytes.Data(), id.bytes, sizeof id.bytes);
  return bytes;
}

Napi::Value join(const Napi::CallbackInfo& info, CudaDevice& device) {
  const auto number = [&](std::size_t i) { return info[i].As<Napi::Number>().DoubleValue(); };
  const auto id = info[3].As<Napi::Uint8Array>();
  Membership m;
  m.rank = static_cast<int>(number(1));
  m.size = static_cast<int>(number(2));
  if (id.ByteLength() != sizeof m.id.bytes) throw Error("BadOption", "cuda: a communicator's id has 128 bytes, got " + std::to_string(id.ByteLength()) + ": rank 0's communicatorId() makes one for all");
  std::memcpy(m.id.bytes, id.Data(), sizeof m.id.bytes);
  m.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(number(4)));
  return Napi::Number::New(info.Env(), device.join(m));
}

Napi::Value abort(const Napi::CallbackInfo& info, CudaDevice& device) {
  device.context()->communicators.at(info[1].As<Napi::Number>().DoubleValue()).abort(info[2].As<Napi::String>().Utf8Value());
  return info.Env().Undefined();
}

}  // namespace

void export_communicators(Napi::Env env, Napi::Object exports) {
  exports.Set("nccl", Napi::Function::New(env, on_device<library>, "nccl"));
  exports.Set("communicatorId", Napi::Function::New(env, on_device<communicator_id>, "communicatorId"));
  exports.Set("join", Napi::Function::New(env, on_device<join>, "join"));
  exports.Set("abort", Napi::Function::New(env, on_device<abort>, "abort"));
}

}  // namespace lomo
