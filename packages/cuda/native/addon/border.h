// Where the addon's own entries, beside the verbs, turn C++ errors into JavaScript's.
#pragma once

#include <napi.h>

#include "lomo/verbs.h"

namespace lomo {

template <class F> auto at_border(Napi::Env env, F body) -> decltype(body()) {
  try {
    return body();
  } catch (const Error& e) {
    throw js_error(env, {e.code(), e.text(), e.file(), "", "", e.line()});
  } catch (const std::bad_alloc&) {
    throw js_error(env, {"OutOfMemory", "the host has no memory left for a native structure", __FILE__, "", "", __LINE__});
  }
}

}  // namespace lomo
