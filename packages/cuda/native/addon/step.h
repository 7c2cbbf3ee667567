// The host's side of updates: the gate's check, and the attributes and operands that all update kernels share.
#pragma once

#include "addon/launch.h"
#include "gpu/update.h"

namespace lomo {

// A non-finite element of g closes the gate, if it is open.
void check_gate(const Call& call, const Operand& g, const Operand& counters, std::int64_t index);

// The shared part of a launch whose attributes begin with: key element index weight_decay clip_value rounding. Operand 0 is g, inout 0 is
// p, the last inout is counters; sums, where there are some, is the only output.
inline gpu::UpdateArgs update_args(const Call& call, const char* op, const Operand& scalars, std::int64_t rows) {
  const Operand &g = call.in(0), &p = call.inout(0);
  same_size(op, "g", g.count(), p.count());
  gpu::UpdateArgs a{};
  a.g = g.as<const float>();
  a.scalars = scalars.as<const float>();
  a.p = p.data;
  a.counters = call.inout(call.inouts - 1).as<int>();
  if (call.outs > 0) {
    same_size(op, "sums", call.out(0).count(), rows * 8);
    a.sums = call.out(0).as<float>();
  }
  a.rows = rows;
  a.columns = rows == 0 ? 0 : p.count() / rows;
  a.key = static_cast<std::uint32_t>(call.integer(0));
  a.first = call.integer(1);
  a.index = static_cast<int>(call.integer(2));
  a.weight_decay = call.attr(3);
  a.clip_value = static_cast<float>(call.attr(4));
  a.stochastic = call.flag(5) ? 1 : 0;
  a.wide = a.first % 4 == 0 && wide({g.data}) && reinterpret_cast<std::uintptr_t>(p.data) % (4 * size_of(p.dtype)) == 0;
  return a;
}

// A block a row where rows are measured, else a thread for every four elements.
inline Grid update_grid(const gpu::UpdateArgs& a) { return a.sums != nullptr ? row_grid(a.rows) : sweep_grid(a.rows * a.columns + 3, 4); }

}  // namespace lomo
