// Pinned slots, and the thread that waits for reads.
#include "addon/transfers.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "addon/context.h"

namespace lomo {
namespace {

cu::Address address(const void* p) { return reinterpret_cast<cu::Address>(p); }
constexpr std::size_t fault_bytes = 32;

}  // namespace

void refuse_fault(const std::int32_t* f) {
  const auto number = [](std::int32_t x) { return std::to_string(x); };
  switch (f[0]) {
    case no_fault: return;
    case bad_id: throw Error("BadId", "embedding: id " + number(f[1]) + " at token " + number(f[2]) + " is outside [0, " + number(f[3]) + "); does the tokenizer belong to this model?");
    case bad_target: throw Error("BadId", "cross_entropy: target " + number(f[1]) + " in row " + number(f[2]) + " is outside the vocabulary of " + number(f[3]));
    case cache_full: throw Error("CacheFull", "cache_write: rows " + number(f[1]) + " to " + number(f[1] + f[2]) + " do not fit a cache of " + number(f[3]));
    case bad_segments: throw Error("BadSegments", "attention: segment " + number(f[1]) + " is rows " + number(f[2]) + " to " + number(f[3]) + " of q and rows " + number(f[4]) + " to " +
                                     number(f[5]) + " of k; segments go upwards, lie inside q and k, and have at most max_q = " + number(f[6]) + " queries and max_k = " + number(f[7]) + " keys");
    default: throw Error("NativeError", "cuda: a kernel reports the unknown fault " + number(f[0]));
  }
}

void Transfers::open(cu::Context context, const std::int32_t* fault) {
  context_ = context;
  fault_ = fault;
  const auto make = [&](Slot& s, std::size_t extra) {
    void* data = nullptr;
    driver_.check(driver_.host_allocate(&data, slot_bytes + extra, cu::host_portable), "cuMemHostAlloc");
    s.data = static_cast<char*>(data);
    driver_.check(driver_.event_create(&s.done, cu::event_no_timing | cu::event_blocking_sync), "cuEventCreate");
  };
  for (Slot& s : writes_) make(s, 0);
  for (Slot& s : reads_) make(s, fault_bytes);
  ring_.resize(256);
}

void Transfers::start(Answer answer, std::function<void()> check) {
  answer_ = std::move(answer);
  check_ = std::move(check);
  thread_ = std::thread([this] { loop(); });
}

void Transfers::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  arrived_.notify_all();
  freed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Transfers::close() {
  stop();
  const auto drop = [&](Slot& s) {
    if (s.done != nullptr) driver_.event_destroy(std::exchange(s.done, nullptr));
    if (s.data != nullptr) driver_.host_free(std::exchange(s.data, nullptr));
  };
  for (Slot& s : writes_) drop(s);
  for (Slot& s : reads_) drop(s);
}

char* Transfers::room_for(std::size_t bytes, cu::Stream stream) {
  if (write_fill_ + bytes > slot_bytes) {
    Slot& full = writes_[static_cast<std::size_t>(write_slot_)];
    driver_.check(driver_.event_record(full.done, stream), "cuEventRecord");
    full.busy = true;
    write_slot_ = (write_slot_ + 1) % write_slots;
    write_fill_ = 0;
    Slot& next = writes_[static_cast<std::size_t>(write_slot_)];
    if (std::exchange(next.busy, false)) {
      const cu::Result r = driver_.event_query(next.done);
      if (r == cu::not_ready) {
        waits_.fetch_add(1, std::memory_order_relaxed);
        driver_.check(driver_.event_synchronize(next.done), "cuEventSynchronize");
      } else {
        driver_.check(r, "cuEventQuery");
      }
    }
  }
  char* at = writes_[static_cast<std::size_t>(write_slot_)].data + write_fill_;
  write_fill_ += (bytes + 255) / 256 * 256;
  return at;
}

void Transfers::write(void* to, const std::byte* from, std::size_t bytes, cu::Stream stream) {
  for (std::size_t at = 0; at < bytes; at += slot_bytes) {
    const std::size_t n = std::min(slot_bytes, bytes - at);
    char* pinned = room_for(n, stream);
    std::memcpy(pinned, from + at, n);
    driver_.check(driver_.copy(address(static_cast<char*>(to) + at), address(pinned), n, stream), "cuMemcpyAsync");
  }
}

Transfers::Slot& Transfers::free_slot() {
  std::unique_lock lock(mutex_);
  for (bool waited = false;; waited = true) {
    for (Slot& s : reads_) {
      if (s.busy) continue;
      s.busy = true;
      return s;
    }
    if (stopping_) throw Error("BackendClosed", "the backend was disposed of");
    if (!waited) waits_.fetch_add(1, std::memory_order_relaxed);
    freed_.wait(lock);
  }
}

void Transfers::read(void* to, const void* from, std::size_t bytes, cu::Stream stream) {
  for (std::size_t at = 0; at == 0 || at < bytes; at += slot_bytes) {
    const std::size_t n = std::min(slot_bytes, bytes - at);
    Slot& s = free_slot();
    try {
      if (n > 0) driver_.check(driver_.copy(address(s.data), address(static_cast<const char*>(from) + at), n, stream), "cuMemcpyAsync");
      driver_.check(driver_.copy(address(s.data + slot_bytes), address(fault_), fault_bytes, stream), "cuMemcpyAsync");
      driver_.check(driver_.event_record(s.done, stream), "cuEventRecord");
    } catch (...) {
      const std::lock_guard lock(mutex_);
      s.busy = false;
      throw;
    }
    push({s.done, &s, static_cast<char*>(to) + at, n, nullptr});
  }
}

void Transfers::after(cu::Event event) { push({event, nullptr, nullptr, 0, nullptr}); }
void Transfers::keep(Command* c) { push({nullptr, nullptr, nullptr, 0, c}); }

void Transfers::read_now(void* to, const void* from, std::size_t bytes, cu::Stream stream) {
  read(to, from, bytes, stream);
  std::unique_lock lock(mutex_);
  freed_.wait(lock, [this] { return (count_ == 0 && !busy_) || stopping_; });
  if (failure_ == nullptr) return;
  const Error e = *std::exchange(failure_, nullptr);
  throw e;
}

void Transfers::push(const Step& step) {
  {
    const std::lock_guard lock(mutex_);
    if (count_ == ring_.size()) {
      allocations_.fetch_add(1, std::memory_order_relaxed);
      std::vector<Step> larger(2 * count_);
      for (std::size_t i = 0; i < count_; ++i) larger[i] = ring_[(first_ + i) % count_];
      ring_ = std::move(larger);
      first_ = 0;
    }
    ring_[(first_ + count_++) % ring_.size()] = step;
  }
  arrived_.notify_one();
}

void Transfers::loop() {
  driver_.context_set(context_);
  for (;;) {
    Step step;
    {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return count_ > 0 || stopping_; });
      if (stopping_) return;
      step = ring_[first_];
      first_ = (first_ + 1) % ring_.size();
      --count_;
      busy_ = true;
    }
    try {
      perform(step);
    } catch (const Error& e) {
      const std::lock_guard lock(mutex_);
      if (failure_ == nullptr) failure_ = std::make_unique<Error>(e);
    }
    if (step.command != nullptr) {
      std::unique_ptr<Error> failure;
      {
        const std::lock_guard lock(mutex_);
        failure = std::move(failure_);
      }
      answer_(step.command, failure.get());
    }
    {
      const std::lock_guard lock(mutex_);
      if (step.slot != nullptr) step.slot->busy = false;
      busy_ = false;
    }
    freed_.notify_all();
  }
}

void Transfers::perform(const Step& step) {
  if (step.event != nullptr) driver_.check(driver_.event_synchronize(step.event), "cuEventSynchronize");
  check_();
  if (step.slot == nullptr) return;
  std::memcpy(step.to, step.slot->data, step.bytes);
  std::int32_t fault[8];
  std::memcpy(fault, step.slot->data + slot_bytes, sizeof fault);
  refuse_fault(fault);
}

}  // namespace lomo
