// When the executor's thread did what: a ring of fixed size, made before the work it times.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "lomo/command.h"

namespace lomo {

// Nanoseconds of a clock that never goes back.
inline std::int64_t monotonic_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Lap {
  std::uint64_t ticket = 0;
  std::int64_t start = 0, end = 0;
  CommandKind kind = CommandKind::launch;
};

class Stopwatch {
 public:

  // Keeps the latest `capacity` laps, at least one.
  explicit Stopwatch(std::size_t capacity) : laps_(std::max<std::size_t>(capacity, 1)), origin_(monotonic_now()) {}

  // Around a command, on the executor's thread; allocates nothing.
  void begin(const Command&) { begun_ = monotonic_now(); }
  void end(const Command& c) { laps_[noted_++ % laps_.size()] = {c.ticket, begun_, monotonic_now(), c.kind}; }

  // When no more laps come: what was kept, oldest first, and what was not.
  std::size_t kept() const { return static_cast<std::size_t>(std::min<std::uint64_t>(noted_, laps_.size())); }
  std::uint64_t lost() const { return noted_ - kept(); }
  const Lap& at(std::size_t i) const { return laps_[(lost() + i) % laps_.size()]; }
  // What times count from.
  std::int64_t origin() const { return origin_; }

 private:
  std::vector<Lap> laps_;
  std::int64_t origin_, begun_ = 0;
  std::uint64_t noted_ = 0;
};

// The kind a device has: its own Watch, or this one. A Watch has begin, end, kept, lost, at and origin.
template <class D> struct StopwatchOf {
  using type = Stopwatch;
};
template <class D>
  requires requires { typename D::Watch; }
struct StopwatchOf<D> {
  using type = typename D::Watch;
};

}  // namespace lomo
