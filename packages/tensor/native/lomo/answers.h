// Promises that other threads' work fulfils: who waits for which command, and how JavaScript's thread is woken for it.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <utility>

#include "lomo/border.h"

namespace lomo {

// Used on JavaScript's thread, except wake.
class Answers {
 public:
  // `complete` runs on JavaScript's thread after every wake, and answers what is done.
  void open(Napi::Env env, std::function<void(Napi::Env)> complete) {
    complete_ = std::move(complete);
    if (napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "lomo"), 0, 1, nullptr, nullptr, this, woken, &wake_) != napi_ok)
      throw Error("NativeError", "Node.js refused a thread-safe function");
    napi_unref_threadsafe_function(env, wake_);
  }

  // Any thread, between open and close.
  void wake() const { napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking); }

  // A promise that `answer` with this command settles: with `bytes`, or undefined where there are none. It keeps the process alive.
  Napi::Value expect(Napi::Env env, Command& c, Napi::Reference<Napi::ArrayBuffer> bytes) {
    auto* waiter = new Waiter{Napi::Promise::Deferred::New(env), std::move(bytes)};
    c.tag = waiter;
    if (pending_++ == 0) napi_ref_threadsafe_function(env, wake_);
    return waiter->promise.Promise();
  }

  // Rejects where there is a failure.
  void answer(Napi::Env env, Command& c, const Failure* failure) {
    const std::unique_ptr<Waiter> waiter(static_cast<Waiter*>(std::exchange(c.tag, nullptr)));
    if (failure != nullptr) waiter->promise.Reject(js_error(env, *failure).Value());
    else waiter->promise.Resolve(waiter->bytes.IsEmpty() ? env.Undefined() : waiter->bytes.Value().As<Napi::Value>());
    if (--pending_ == 0 && wake_ != nullptr) napi_unref_threadsafe_function(env, wake_);
  }

  int pending() const { return pending_; }

  // Whoever still waits is never answered.
  void close() {
    if (wake_ != nullptr) napi_release_threadsafe_function(std::exchange(wake_, nullptr), napi_tsfn_abort);
  }

 private:
  struct Waiter {
    Napi::Promise::Deferred promise;
    Napi::Reference<Napi::ArrayBuffer> bytes;
  };

  static void woken(napi_env env, napi_value, void* self, void*) {
    if (env != nullptr) static_cast<Answers*>(self)->complete_(env);
  }

  napi_threadsafe_function wake_ = nullptr;
  std::function<void(Napi::Env)> complete_;
  int pending_ = 0;
};

}  // namespace lomo
