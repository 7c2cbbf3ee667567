// Times from pairs of events.
#include "addon/watch.h"

#include <algorithm>
#include <cmath>

namespace lomo {

Watch::Watch(const Driver& driver, EventPairs& pairs, std::size_t capacity, cu::Stream stream) : driver_(driver), pairs_(pairs), notes_(std::max<std::size_t>(capacity, 1)) {
  while (pairs.size() < notes_.size()) {
    pairs.push_back({});
    for (cu::Event& e : pairs.back()) driver_.check(driver_.event_create(&e, cu::event_blocking_sync), "cuEventCreate");
  }
  driver_.check(driver_.event_create(&origin_, cu::event_blocking_sync), "cuEventCreate");
  try {
    driver_.check(driver_.event_record(origin_, stream), "cuEventRecord");
    driver_.check(driver_.event_synchronize(origin_), "cuEventSynchronize");
  } catch (...) {
    driver_.event_destroy(origin_);
    throw;
  }
}

Watch::~Watch() { driver_.event_destroy(origin_); }

void Watch::begin(cu::Stream stream) {
  if (stream != nullptr) driver_.event_record(pairs_[noted_ % notes_.size()][0], stream);
}

void Watch::end(const Command& c, cu::Stream stream) {
  if (stream == nullptr) return;
  const std::size_t at = noted_++ % notes_.size();
  notes_[at] = {c.ticket, c.kind};
  driver_.event_record(pairs_[at][1], stream);
}

void Watch::settle() {
  for (std::size_t i = 0; i < kept() && !failed_; ++i) failed_ = driver_.event_synchronize(pairs_[(noted_ - kept() + i) % notes_.size()][1]) != cu::success;
}

std::size_t Watch::kept() const { return failed_ ? 0 : static_cast<std::size_t>(std::min<std::uint64_t>(noted_, notes_.size())); }

Lap Watch::at(std::size_t i) const {
  const std::size_t at = (lost() + i) % notes_.size();
  return {notes_[at].ticket, since_origin(pairs_[at][0]), since_origin(pairs_[at][1]), notes_[at].kind};
}

std::int64_t Watch::since_origin(cu::Event e) const {
  float milliseconds = 0;
  driver_.check(driver_.event_elapsed(&milliseconds, origin_, e), "cuEventElapsedTime");
  return std::llround(static_cast<double>(milliseconds) * 1e6);
}

}  // namespace lomo
