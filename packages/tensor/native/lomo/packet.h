// A launch as numbers in one array that both languages share: no object is decoded at the border.
// [kernel, ins, inouts, outs, attributes, queue, check, workspace memory or -1, its offset, its bytes], then eight numbers an operand
// [memory, byte offset, dtype, rank, d0, d1, d2, d3], then the attributes. @lomo/cpu's packet.ts writes the same layout.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "lomo/command.h"

namespace lomo {

constexpr int packet_head = 10, packet_operand = 8;
constexpr int packet_length = packet_head + packet_operand * max_operands + max_attributes;

// The memories of a backend by id; ids are never reused.
class Memories {
 public:
  std::int32_t add(const Reservation& r) {
    list_.push_back(r);
    reserved_ += r.bytes;
    return static_cast<std::int32_t>(list_.size() - 1);
  }
  Reservation remove(double id) {
    Reservation& at = const_cast<Reservation&>(find(id));
    reserved_ -= at.bytes;
    return std::exchange(at, {});
  }
  // Where [offset, offset + bytes) of a memory lies. Throws FreedMemory or OutOfBounds.
  void* locate(double id, double offset, double bytes) const {
    const Reservation& r = find(id);
    if (!(offset >= 0 && bytes >= 0 && offset == std::floor(offset) && offset + bytes <= static_cast<double>(r.bytes)))
      throw Error("OutOfBounds", "bytes " + whole(offset) + " to " + whole(offset + bytes) + " lie outside memory " + whole(id) + " of " +
                                     std::to_string(r.bytes) + " bytes");
    return static_cast<char*>(r.data) + static_cast<std::size_t>(offset);
  }
  const std::vector<Reservation>& all() const { return list_; }
  std::size_t reserved() const { return reserved_; }

 private:
  static std::string whole(double x) { return std::to_string(static_cast<long long>(x)); }
  const Reservation& find(double id) const {
    if (!(id >= 0 && id < static_cast<double>(list_.size()))) throw Error("FreedMemory", "memory " + whole(id) + " is not of this backend");
    const Reservation& r = list_[static_cast<std::size_t>(id)];
    if (r.data == nullptr) throw Error("FreedMemory", "memory " + whole(id) + " was freed");
    return r;
  }
  std::vector<Reservation> list_;
  std::size_t reserved_ = 0;
};

// Without memories (a workspace query) only shapes are looked at.
inline void decode_operand(const double* p, DType wanted, const Memories* memories, Operand& o) {
  const double rank = p[3];
  if (!(rank >= 0 && rank <= max_rank)) throw Error("BadRank", "an operand has rank " + std::to_string(static_cast<int>(rank)) + "; kernels take up to 4");
  if (p[2] != static_cast<double>(wanted))
    throw Error("BadDType", std::string("an operand is ") + (p[2] >= 0 && p[2] <= 4 ? name_of(static_cast<DType>(static_cast<int>(p[2]))) : "of no dtype") +
                                " where the kernel was looked up for " + name_of(wanted));
  o.dtype = wanted;
  o.rank = static_cast<std::int32_t>(rank);
  double bytes = static_cast<double>(size_of(wanted));
  if (std::fmod(p[1], bytes) != 0) throw Error("Misaligned", "an operand's byte offset " + std::to_string(static_cast<long long>(p[1])) + " is no multiple of its element size");
  for (int d = 0; d < max_rank; ++d) {
    const double length = d < o.rank ? p[4 + d] : 1;
    if (!(length >= 0 && length == std::floor(length))) throw Error("BadShape", "an operand has a dimension that is no whole number");
    o.dim[d] = static_cast<std::int64_t>(length);
    bytes *= length;
  }
  o.data = memories == nullptr ? nullptr : memories->locate(p[0], p[1], bytes);
}

// Fills `c` from the packet and checks everything that can be checked before the work runs.
inline void decode(const double* p, const Registry& registry, const Memories* memories, Command& c) {
  const Resolved& r = registry.at(p[0]);
  const auto count = [](double x) { return std::to_string(static_cast<int>(x)); };
  if (p[1] != r.ins || p[2] != r.inouts || p[3] != r.outs)
    throw Error("BadArity", std::string(r.kernel->name) + ": got " + count(p[1]) + " ins, " + count(p[2]) + " inouts, " + count(p[3]) + " outs; the kernel was looked up with " +
                                count(r.ins) + ", " + count(r.inouts) + ", " + count(r.outs));
  if (p[4] != r.attributes)
    throw Error("BadArity", std::string(r.kernel->name) + ": got " + count(p[4]) + " attributes, it takes " + count(r.attributes) + " (" + r.kernel->attributes + ")");
  c.kind = CommandKind::launch;
  c.kernel = r.kernel;
  c.queue = static_cast<std::int32_t>(p[5]);
  c.check = p[6] != 0;
  c.tag = nullptr;
  const int operands = r.ins + r.inouts + r.outs;
  for (int i = 0; i < operands; ++i) decode_operand(p + packet_head + packet_operand * i, r.dtypes[static_cast<std::size_t>(i)], memories, c.operands[i]);
  const double* attributes = p + packet_head + packet_operand * operands;
  for (int i = 0; i < r.attributes; ++i) c.attributes[i] = attributes[i];
  c.call = {};
  c.call.operands = c.operands;
  c.call.ins = r.ins;
  c.call.inouts = r.inouts;
  c.call.outs = r.outs;
  c.call.attributes = c.attributes;
  if (p[7] >= 0 && memories != nullptr) {
    c.call.workspace = memories->locate(p[7], p[8], p[9]);
    c.call.workspace_bytes = static_cast<std::size_t>(p[9]);
    if (reinterpret_cast<std::uintptr_t>(c.call.workspace) % 64 != 0) throw Error("Misaligned", std::string(r.kernel->name) + ": the workspace is not 64-byte aligned");
  }
}

}  // namespace lomo
