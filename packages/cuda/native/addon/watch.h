// A stopwatch on the GPU's own clock: an event on the queue's stream before and after every command, read when all of it is over.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "driver/driver.h"
#include "lomo/stopwatch.h"

namespace lomo {

// Pairs of events, kept from one watch to the next.
using EventPairs = std::vector<std::array<cu::Event, 2>>;

class Watch {
 public:
  // Makes what `pairs` lacks of `capacity`, borrows them, and notes the moment that times count from: `stream` is waited for.
  Watch(const Driver& driver, EventPairs& pairs, std::size_t capacity, cu::Stream stream);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Around a command, on the thread that feeds the queues; enqueues an event and nothing else. `stream` is the command's, or null where it
  // has no work on one.
  void begin(cu::Stream stream);
  void end(const Command& c, cu::Stream stream);

  // Waits for the GPU. After a device error there are no times.
  void settle();
  // Then: what was kept, oldest first, and what was not.
  std::size_t kept() const;
  std::uint64_t lost() const { return noted_ - kept(); }
  Lap at(std::size_t i) const;
  std::int64_t origin() const { return 0; }

 private:
  struct Note {
    std::uint64_t ticket = 0;
    CommandKind kind = CommandKind::launch;
  };
  std::int64_t since_origin(cu::Event e) const;

  const Driver& driver_;
  const EventPairs& pairs_;
  std::vector<Note> notes_;
  cu::Event origin_ = nullptr;
  std::uint64_t noted_ = 0;
  bool failed_ = false;
};

}  // namespace lomo
