// Bytes between the host and the GPU through pinned slots. Writes lie one behind the other in a ring of slots; reads are copied out by a
// thread of their own once the GPU has left them, so that whoever feeds the queues goes on at once.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "driver/driver.h"
#include "lomo/command.h"

namespace lomo {

// Throws the error of a fault cell i32 [8] that is not zero.
void refuse_fault(const std::int32_t* fault);

class Transfers {
 public:
  using Answer = std::function<void(Command*, const Error*)>;

  explicit Transfers(const Driver& driver) : driver_(driver) {}
  ~Transfers() { close(); }

  // With the context current: takes pinned memory and events. `fault`: the device's cell, copied out with every read.
  void open(cu::Context context, const std::int32_t* fault);
  // Starts the thread that answers. `answer` is called from it; `check`, after every wait, throws where the work was given up.
  void start(Answer answer, std::function<void()> check);
  // Ends the thread; commands that were kept and not answered stay so. Any number of times.
  void stop();
  // Gives everything back.
  void close();

  // The feeding thread. Work goes on `stream`; a write waits for the GPU only where the ring is full, a read where all slots hold reads.
  void write(void* to, const std::byte* from, std::size_t bytes, cu::Stream stream);
  void read(void* to, const void* from, std::size_t bytes, cu::Stream stream);
  // The next `keep` is answered after this event.
  void after(cu::Event event);
  // The command is answered after all reads and events before it.
  void keep(Command* c);
  // As read, done when it returns. Throws what the fault cell says.
  void read_now(void* to, const void* from, std::size_t bytes, cu::Stream stream);

  // Times the feeding thread waited for the GPU.
  std::uint64_t waits() const { return waits_.load(std::memory_order_relaxed); }
  std::uint64_t allocations() const { return allocations_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t slot_bytes = std::size_t{4} << 20;
  static constexpr int write_slots = 4, read_slots = 4;

  // Pinned memory; `done` says when the device has taken the bytes or left them. A read's fault cell lies behind the bytes.
  struct Slot {
    char* data = nullptr;
    cu::Event done = nullptr;
    bool busy = false;
  };
  // What the answering thread does next: wait for an event; copy out of a slot; answer a command.
  struct Step {
    cu::Event event = nullptr;
    Slot* slot = nullptr;
    void* to = nullptr;
    std::size_t bytes = 0;
    Command* command = nullptr;
  };

  char* room_for(std::size_t bytes, cu::Stream stream);
  Slot& free_slot();
  void push(const Step& step);
  void loop();
  void perform(const Step& step);

  const Driver& driver_;
  cu::Context context_ = nullptr;
  const std::int32_t* fault_ = nullptr;
  std::array<Slot, write_slots> writes_;
  std::array<Slot, read_slots> reads_;
  int write_slot_ = 0;
  std::size_t write_fill_ = 0;
  std::atomic<std::uint64_t> waits_{0}, allocations_{0};

  Answer answer_;
  std::function<void()> check_;
  std::mutex mutex_;
  std::condition_variable arrived_, freed_;
  std::vector<Step> ring_;  // steps first_ .. first_ + count_, round
  std::size_t first_ = 0, count_ = 0;
  bool stopping_ = false, busy_ = false;
  std::unique_ptr<Error> failure_;  // since the last command that was answered; the answering thread's
  std::thread thread_;
};

}  // namespace lomo
