// Which dtypes a kernel takes, written as a pattern in its row of the kernel table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lomo/kernel.h"

namespace lomo {

template <std::size_t n> struct pattern {
  char text[n];
  constexpr pattern(const char (&s)[n]) {
    for (std::size_t i = 0; i < n; ++i) text[i] = s[i];
  }
};

// Dtypes as "ins|inouts|outs", one letter an operand: f f32, h f16, i i32, r real (all r equal: f32 or bf16), p parameter storage (all p
// equal: f32, bf16 or f16), s any of those three, b any dtype (all b equal), x any dtype. Static: each instruction set's files have their own.
template <pattern wanted> static bool accepts(const Signature& s) {
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
    if (*c == 'h' && t != DType::f16) return false;
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

}  // namespace lomo
