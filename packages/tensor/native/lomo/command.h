// What travels from the language border to the executor's thread: one command, self-contained, in a recycled node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "lomo/error.h"
#include "lomo/kernel.h"
#include "lomo/registry.h"

namespace lomo {

enum class CommandKind : std::uint8_t { launch, copy, write, read, free, close, wait, reach, tune };

// Memory of a backend as its device gave it.
struct Reservation {
  void* data = nullptr;
  std::size_t bytes = 0;   // asked for
  std::size_t mapped = 0;  // taken from the system
  std::int32_t place = 0;  // 0 device, 1 pinned
};

struct Staging {
  std::unique_ptr<std::byte[]> data;
  std::size_t capacity = 0;
};

struct Command {
  CommandKind kind = CommandKind::launch;
  bool check = false;      // look for NaN in what a launch wrote
  std::int32_t queue = 0;  // compute, receive, send, offload
  std::uint64_t ticket = 0;
  Command* next = nullptr;
  // launch
  const Kernel* kernel = nullptr;
  Call call;
  Operand operands[max_operands];
  double attributes[max_attributes] = {};
  // copy, write, read; tune: scratch
  void* to = nullptr;
  const void* from = nullptr;
  std::size_t bytes = 0;
  Staging staging;
  // read, close, reach, tune: who waits, and whether the executor was poisoned by then
  bool failed = false;
  void* tag = nullptr;
  // free
  Reservation reservation;
  // wait, reach: for the work of queue `other` up to ticket `until`
  std::int32_t other = 0;
  std::uint64_t until = 0;
};

// The first error of a backend, with what was being done.
struct Failure {
  std::string code, text, file, op, shapes;
  int line = 0;
};

// 'bf16[4, 8], f32[8]' of a call's operands.
inline std::string spell_operands(const Call& call) {
  std::string text;
  for (std::int32_t i = 0; i < call.ins + call.inouts + call.outs; ++i) {
    const Operand& o = call.operands[i];
    text += i == 0 ? "" : i == call.ins + call.inouts ? " -> " : i == call.ins ? " | " : ", ";
    text += name_of(o.dtype);
    text += '[';
    for (std::int32_t d = 0; d < o.rank; ++d) text += (d == 0 ? "" : ", ") + std::to_string(o.dim[d]);
    text += ']';
  }
  return text;
}

inline Failure describe(const Command& c, const Error& e) {
  constexpr const char* verbs[] = {"launch", "copy", "write", "read", "free", "close", "wait", "reach", "tune"};
  Failure f{e.code(), e.text(), e.file(), verbs[static_cast<int>(c.kind)], "", e.line()};
  if (c.kind == CommandKind::launch) {
    f.op = c.kernel->name;
    f.shapes = spell_operands(c.call);
  }
  return f;
}

}  // namespace lomo
