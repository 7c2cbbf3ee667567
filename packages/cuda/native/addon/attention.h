// The host's side of attention's kernels: shapes and attributes checked and put into their arguments.
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include "addon/launch.h"
#include "gpu/attention.h"

namespace lomo {

// q, k, v are operands 0, 1, 2, and cu_q, cu_k the last two inputs. Throws BadShape.
inline gpu::AttentionArgs attention_args(const char* op, const Call& call) {
  const Operand &q = call.in(0), &k = call.in(1), &v = call.in(2), &cu_q = call.in(call.ins - 2), &cu_k = call.in(call.ins - 1);
  const auto refuse = [&](const std::string& why) { throw Error("BadShape", std::string(op) + ": " + why); };
  const auto number = [](std::int64_t n) { return std::to_string(n); };
  if (q.rank != 3 || k.rank != 3 || v.rank != 3)
    refuse("q, k and v have " + number(q.rank) + ", " + number(k.rank) + " and " + number(v.rank) + " dimensions; each needs [tokens, heads, head_dim]");
  const std::int64_t tokens = q.dim[0], heads = q.dim[1], keys = k.dim[0], groups = k.dim[1], d = q.dim[2];
  if (d < 1 || d > 256) refuse("head_dim " + number(d) + " is outside 1..256");
  if (k.dim[2] != d) refuse("head_dim of q is " + number(d) + ", of k " + number(k.dim[2]));
  same_size(op, "v", v.count(), k.count());
  if (groups < 1 || heads < 1 || heads % groups != 0) refuse(number(heads) + " heads do not divide into " + number(groups) + " key-value groups");
  if (cu_q.count() < 1 || cu_k.count() != cu_q.count()) refuse("cu_q has " + number(cu_q.count()) + " numbers, cu_k " + number(cu_k.count()) + "; both need segments + 1");
  const std::int64_t per_group = heads / groups;
  // Rows are numbered, and divided by per_group, in 32 bits.
  constexpr std::int64_t most = std::int64_t{1} << 30;
  if ((tokens + 256) * per_group * per_group >= most || tokens * heads >= most || keys >= most || cu_q.count() >= most)
    refuse(number(tokens) + " tokens of " + number(heads) + " heads, " + number(per_group) + " a group, and " + number(keys) + " keys are more than one call takes: split the batch");

  gpu::AttentionArgs a{};
  a.q = q.data, a.k = k.data, a.v = v.data;
  a.cu_q = cu_q.as<const int>(), a.cu_k = cu_k.as<const int>();
  a.fault = fault_cell(call);
  a.tokens = static_cast<int>(tokens), a.keys = static_cast<int>(keys), a.heads = static_cast<int>(heads), a.groups = static_cast<int>(groups), a.d = static_cast<int>(d);
  a.segments = static_cast<int>(cu_q.count() - 1), a.per_group = static_cast<int>(per_group);
  a.inverse = static_cast<unsigned>((std::uint64_t{1} << 32) / static_cast<std::uint64_t>(per_group) + 1);
  const auto attribute = [&](int i) { return static_cast<int>(std::min(std::max(call.attr(i), 0.0), 1073741824.0)); };
  a.causal = call.flag(1) ? 1 : 0, a.window = attribute(2), a.max_q = attribute(3), a.max_k = attribute(4);
  const double scale = call.attr(0);
  a.scale = static_cast<float>(scale);
  a.sign = scale > 0 ? 1.0f : -1.0f;
  a.steepness = static_cast<float>(std::abs(scale) * 1.4426950408889634);
  if (!(a.steepness >= std::numeric_limits<float>::min())) a.sign = 0.0f, a.steepness = 1.0f;  // all keys weigh the same
  a.wide = d * static_cast<std::int64_t>(size_of(q.dtype)) % 16 == 0 && wide({q.data, k.data, v.data});
  return a;
}

}  // namespace lomo
