// From a call's dtypes to template instances, and from misuse to lomo::Error.
#pragma once

#include <cstdarg>
#include <cstdio>

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

template <std::size_t n> struct pattern {
  char text[n];
  constexpr pattern(const char (&s)[n]) {
    for (std::size_t i = 0; i < n; ++i) text[i] = s[i];
  }
};

// Dtypes as "ins|inouts|outs", one letter an operand: f f32, i i32, r real (all r equal: f32 or bf16), p parameter storage (all p equal:
// f32, bf16 or f16), s any of those three, b any dtype (all b equal), x any dtype.
template <pattern wanted> bool accepts(const Signature& s) {
  const DType* types[3] = {s.ins, s.inouts, s.outs};
  const std::int32_t counts[3] = {s.n_ins, s.n_inouts, s.n_outs};
  int group = 0, at = 0;
  const DType* shared = nullptr;
  for (const char* c = wanted.text; *c != 0; ++c) {
    if (*c == '|') {
      if (at != counts[group]) return false;
      ++group;
      at = 0;
      continue;
    }
    if (at >= counts[group]) return false;
    const DType t = types[group][at++];
    const bool floating = t == DType::f32 || t == DType::bf16 || t == DType::f16;
    if (*c == 'f' && t != DType::f32) return false;
    if (*c == 'i' && t != DType::i32) return false;
    if (*c == 'r' && t != DType::f32 && t != DType::bf16) return false;
    if ((*c == 'p' || *c == 's') && !floating) return false;
    if (*c == 'r' || *c == 'p' || *c == 'b') {
      const DType* here = &types[group][at - 1];
      if (shared != nullptr && *shared != t) return false;
      shared = here;
    }
  }
  return group == 2 && at == counts[2];
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
