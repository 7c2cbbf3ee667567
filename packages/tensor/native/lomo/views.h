// Memories as JavaScript sees them in place: ArrayBuffers, each of a stretch of a memory, detached when the memory goes.
#pragma once

#include <napi.h>

#include <cstddef>
#include <map>

namespace lomo {

class Views {
 public:
  // `bytes` of a memory from `data` on; the same buffer every time the same stretch is asked for.
  Napi::Value of(Napi::Env env, std::size_t memory, void* data, std::size_t bytes) {
    auto& known = known_[memory][data];
    if (known.IsEmpty()) known = Napi::Reference<Napi::ArrayBuffer>::New(Napi::ArrayBuffer::New(env, data, bytes), 1);
    return known.Value();
  }

  void detach(Napi::Env env, std::size_t memory) {
    const auto at = known_.find(memory);
    if (at == known_.end()) return;
    const Napi::HandleScope scope(env);
    for (const auto& [data, reference] : at->second) {
      napi_value buffer = nullptr;
      // Also at the environment's end, where nothing may be thrown.
      if (napi_get_reference_value(env, reference, &buffer) == napi_ok && buffer != nullptr) napi_detach_arraybuffer(env, buffer);
    }
    known_.erase(at);
  }

  void detach_all(Napi::Env env) {
    while (!known_.empty()) detach(env, known_.begin()->first);
  }

 private:
  std::map<std::size_t, std::map<void*, Napi::Reference<Napi::ArrayBuffer>>> known_;
};

}  // namespace lomo
