// Host bytes that outlive the caller's: buffers recycled once the commands that carry them are done, and enough of them for what a step asks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "lomo/command.h"

namespace lomo {

// Used by one thread, the one that enqueues.
class StagingPool {
 public:
  // A copy of `bytes` of `from`.
  Staging stage(const void* from, std::size_t bytes) {
    Staging s;
    for (std::size_t i = 0; i < free_.size() && s.data == nullptr; ++i) {
      if (free_[i].capacity < bytes || free_[i].capacity > 4 * bytes + 4096) continue;
      s = std::move(free_[i]);
      free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
      cached_ -= s.capacity;
    }
    Demand* demand = demand_for(bytes);
    if (demand != nullptr) ++demand->used;
    if (s.data == nullptr) {
      s = make(bytes);
      if (demand != nullptr) ++demand->made;
    }
    std::memcpy(s.data.get(), from, bytes);
    return s;
  }

  // A write that found nothing to wait for: the next time it may have to be staged.
  void unstaged(std::size_t bytes) {
    if (Demand* demand = demand_for(bytes); demand != nullptr) ++demand->used;
  }

  void give_back(Staging s) {
    if (s.data == nullptr || cached_ + s.capacity > limit) return;
    cached_ += s.capacity;
    free_.push_back(std::move(s));
  }

  // Where a caller rests: room for as many writes as came since the last rest, all at once.
  void rest() {
    for (Demand& demand : demands_) {
      for (; demand.made < demand.used && cached_ + demand.bytes <= limit; ++demand.made) give_back(make(demand.bytes));
      demand.used = 0;
    }
  }

  std::uint64_t allocations() const { return allocations_; }

 private:
  static constexpr std::size_t limit = std::size_t{16} << 20, small = std::size_t{1} << 20, most_sizes = 64;

  // How many writes of one size lay between two rests, and how many buffers there are for them.
  struct Demand {
    std::size_t bytes = 0;
    std::uint64_t used = 0, made = 0;
  };

  Staging make(std::size_t bytes) {
    ++allocations_;
    Staging s;
    s.capacity = bytes;
    s.data = std::make_unique_for_overwrite<std::byte[]>(bytes);
    return s;
  }

  // Null for sizes that no step repeats: large ones, and those beyond a fixed count.
  Demand* demand_for(std::size_t bytes) {
    if (bytes > small) return nullptr;
    for (Demand& demand : demands_) {
      if (demand.bytes == bytes) return &demand;
    }
    if (demands_.size() == most_sizes) return nullptr;
    return &demands_.emplace_back(Demand{bytes, 0, 0});
  }

  std::vector<Staging> free_;
  std::vector<Demand> demands_;
  std::size_t cached_ = 0;
  std::uint64_t allocations_ = 0;
};

}  // namespace lomo
