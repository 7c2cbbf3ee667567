// Where C++ meets JavaScript: its errors become JavaScript's, with code, place, op and shapes.
#pragma once

#include <napi.h>

#include <new>
#include <string>

#include "lomo/command.h"

namespace lomo {

inline Napi::Error js_error(Napi::Env env, const Failure& f) {
  const Napi::Error e = Napi::Error::New(env, f.text);
  e.Set("code", f.code);
  e.Set("at", f.file.substr(f.file.rfind('/') + 1) + ":" + std::to_string(f.line));
  if (!f.op.empty()) e.Set("op", f.op);
  if (!f.shapes.empty()) e.Set("shapes", f.shapes);
  return e;
}

// Runs `body`; what it throws is thrown as JavaScript's.
template <class F> auto border(Napi::Env env, F body) {
  try {
    return body();
  } catch (const Error& e) {
    throw js_error(env, {e.code(), e.text(), e.file(), "", "", e.line()});
  } catch (const std::bad_alloc&) {
    throw js_error(env, {"OutOfMemory", "the host has no memory left for a native structure", __FILE__, "", "", __LINE__});
  }
}

}  // namespace lomo
