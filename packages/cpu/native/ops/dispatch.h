// From a call's dtypes to template instances, and from misuse to lomo::Error.
#pragma once

#include <cstdarg>
#include <cstdio>

#include <lomo/accepts.h>
#include <lomo/error.h>
#include <lomo/kernel.h>

#include "../simd/storage.h"

namespace lomo::LOMO_ISA {

[[noreturn]] __attribute__((format(printf, 4, 5))) inline void fail(const char* file, int line, const char* code, const char* format, ...) {
  char text[512];
  std::va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  throw Error(code, text, file, line);
}
#define LOMO_REQUIRE(condition, code, ...)                                             \
  do {                                                                                 \
    if (!(condition)) ::lomo::LOMO_ISA::fail(__FILE__, __LINE__, code, __VA_ARGS__);   \
  } while (false)

// Sizes a kernel relies on: `got` elements in the operand called `what`.
LOMO_INLINE void same_size(const char* op, const char* what, std::int64_t got, std::int64_t want) {
  LOMO_REQUIRE(got == want, "BadShape", "%s: %s has %lld elements, the other operands need %lld", op, what, static_cast<long long>(got),
               static_cast<long long>(want));
}

// f(T*) with the storage type of t; f sees a null pointer of that type.
template <class F> inline void with_real(DType t, F f) {
  if (t == DType::f32) f(static_cast<float*>(nullptr));
  else f(static_cast<bf16*>(nullptr));
}
template <class F> inline void with_storage(DType t, F f) {
  if (t == DType::f16) f(static_cast<f16*>(nullptr));
  else with_real(t, f);
}
template <class P> using pointee = std::remove_pointer_t<P>;

}  // namespace lomo::LOMO_ISA
