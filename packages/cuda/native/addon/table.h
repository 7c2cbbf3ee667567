// The kernel table without a GPU: which kernels there are and how much scratch a launch takes, from constants alone. Plans are made with it.
#pragma once

#include <napi.h>

#include "addon/border.h"
#include "addon/tables.h"
#include "lomo/packet.h"

namespace lomo {

class KernelTable : public Napi::ObjectWrap<KernelTable> {
  using Info = Napi::CallbackInfo;

 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "KernelTable",
                       {InstanceMethod<&KernelTable::find>("find"), InstanceMethod<&KernelTable::attributes>("attributes"),
                        InstanceMethod<&KernelTable::supported>("supported"), InstanceMethod<&KernelTable::workspace>("workspace")});
  }

  // new KernelTable(packet: Float64Array)
  explicit KernelTable(const Info& info) : Napi::ObjectWrap<KernelTable>(info), registry_(kernel_set) {
    const auto packet = info[0].As<Napi::Float64Array>();
    at_border(info.Env(), [&] {
      if (packet.ElementLength() < static_cast<std::size_t>(packet_length)) throw Error("BadPacket", "the launch packet is too short");
    });
    packet_ = Napi::Persistent(packet.As<Napi::Object>());
    numbers_ = packet.Data();
  }

 private:
  // find(name, dtypes: number[], ins, inouts): kernel id or -1
  Napi::Value find(const Info& info) {
    const auto list = info[1].As<Napi::Array>();
    std::vector<DType> dtypes;
    for (std::uint32_t i = 0; i < list.Length(); ++i) dtypes.push_back(static_cast<DType>(list.Get(i).As<Napi::Number>().Uint32Value()));
    return at_border(info.Env(), [&] {
      return Napi::Number::New(info.Env(), registry_.find(info[0].As<Napi::String>().Utf8Value(), dtypes, info[2].As<Napi::Number>().Int32Value(), info[3].As<Napi::Number>().Int32Value()));
    });
  }
  Napi::Value attributes(const Info& info) {
    return at_border(info.Env(), [&] { return Napi::String::New(info.Env(), registry_.at(info[0].As<Napi::Number>().DoubleValue()).kernel->attributes); });
  }
  Napi::Value supported(const Info& info) {
    const auto found = registry_.supported(info[0].As<Napi::String>().Utf8Value());
    auto list = Napi::Array::New(info.Env(), found.size());
    for (std::uint32_t i = 0; i < found.size(); ++i) list.Set(i, found[i]);
    return list;
  }
  // workspace(): bytes, of the launch in the packet
  Napi::Value workspace(const Info& info) {
    return at_border(info.Env(), [&] {
      decode(numbers_, registry_, nullptr, query_);
      const Kernel& kernel = *query_.kernel;
      return Napi::Number::New(info.Env(), kernel.workspace == nullptr ? 0.0 : static_cast<double>(kernel.workspace(query_.call)));
    });
  }

  Registry registry_;
  Napi::ObjectReference packet_;
  const double* numbers_ = nullptr;
  Command query_;
};

}  // namespace lomo
