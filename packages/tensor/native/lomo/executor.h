// One thread per backend that works off a first-in first-out queue of commands. Nodes are recycled: after warm-up a launch allocates
// nothing. The first failure poisons the executor: later work is skipped and every later read is handed back with that failure.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "lomo/command.h"
#include "lomo/staging.h"
#include "lomo/stopwatch.h"

namespace lomo {

// D is the device: begin() on the executor's thread before anything else; run(Command&) for a launch; copy(to, from, bytes, kind) for
// copies, writes and reads, or move(Command&) where the queue matters; release(Reservation) for frees; wait(Command&) where queues run
// apart; finish() after which all work given so far is done. A device whose work outlives its commands has begin(Answer) instead, and
// keep(Command*): it takes the command that somebody waits for and hands it to Answer, from any thread, when its work is done, in order.
// A device with its own kind of stopwatch has watch(capacity), which makes one.
template <class D>
class Executor {
 public:
  using Watch = typename StopwatchOf<D>::type;
  // A kept command, with what went wrong, or null.
  using Answer = std::function<void(Command*, const Error*)>;

  // `notify` is called after a command that somebody waits for was put aside for `completed`, from the thread that did it.
  Executor(D& device, std::function<void()> notify) : device_(device), notify_(std::move(notify)), thread_([this] { loop(); }) {}
  ~Executor() { stop(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // A blank node; owner's thread only, as everything up to `stop`.
  Command* take() {
    if (spare_ == nullptr) reclaim();
    if (spare_ == nullptr) grow();
    Command* node = std::exchange(spare_, spare_->next);
    node->next = nullptr;
    return node;
  }

  void give_back(Command* node) { node->next = std::exchange(spare_, node); }

  // Bytes that outlive the caller's; recycled once the command that carries them is done.
  Staging stage(const void* from, std::size_t bytes) {
    reclaim();
    return staging_.stage(from, bytes);
  }

  // A write that found nothing to wait for: the next time it may have to be staged.
  void unstaged(std::size_t bytes) { staging_.unstaged(bytes); }

  // Enqueues and returns the command's ticket: 1, 2, ...
  std::uint64_t push(Command* node) {
    node->ticket = ++pushed_;
    ++burst_;
    bool wake;
    {
      const std::lock_guard lock(mutex_);
      (last_ == nullptr ? first_ : last_->next) = node;
      last_ = node;
      wake = asleep_;
    }
    if (wake) arrived_.notify_one();
    return node->ticket;
  }

  // Called where a caller rests (a read): makes room for as much work as it has just enqueued to lie in the queue at once. How far a step
  // runs ahead of the thread is chance; after the first one it never needs more than is there.
  void rest() {
    while (nodes_ < std::min<std::uint64_t>(burst_, most_nodes)) grow();
    burst_ = 0;
    staging_.rest();
  }

  bool idle() const { return finished_.load(std::memory_order_acquire) == pushed_; }
  bool poisoned() const { return poisoned_.load(std::memory_order_acquire); }
  const Failure& failure() const { return failure_; }  // once poisoned
  std::uint64_t allocations() const { return allocations_ + staging_.allocations(); }

  // Blocks until everything pushed so far is done.
  void drain() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    progressed_.wait(lock, [this] { return finished_.load(std::memory_order_relaxed) == pushed_ || stopped_; });
    --waiting_;
  }

  // Times every command that runs from now on. Throws StopwatchRunning.
  void time(std::size_t capacity) {
    if (stopwatch_ != nullptr) throw Error("StopwatchRunning", "the stopwatch is running: stop it first");
    ++allocations_;
    if constexpr (requires { device_.watch(capacity); }) stopwatch_ = device_.watch(capacity);
    else stopwatch_ = std::make_unique<Watch>(capacity);
    timing_.store(stopwatch_.get(), std::memory_order_release);
  }

  // Blocks until everything pushed so far is done, then hands the stopwatch over; null where none is running.
  std::unique_ptr<Watch> timed() {
    drain();
    timing_.store(nullptr, std::memory_order_release);
    if constexpr (requires { stopwatch_->settle(); }) {
      if (stopwatch_ != nullptr) stopwatch_->settle();
    }
    return std::move(stopwatch_);
  }

  // The reads and closes done since the last call, oldest first, linked by `next`; give each back.
  Command* completed() {
    const std::lock_guard lock(mutex_);
    done_last_ = nullptr;
    return std::exchange(done_first_, nullptr);
  }

  // Skips what is queued, waits for the command that is running, ends the thread. Reads still queued are never completed.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    arrived_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

 private:
  static constexpr int chunk_nodes = 128;
  static constexpr std::uint64_t most_nodes = 1 << 15;

  void grow() {
    ++allocations_;
    nodes_ += chunk_nodes;
    chunks_.push_back(std::make_unique<Command[]>(chunk_nodes));
    for (int i = 0; i < chunk_nodes; ++i) give_back(&chunks_.back()[i]);
  }

  void reclaim() {
    Command* node;
    {
      const std::lock_guard lock(mutex_);
      node = std::exchange(freed_, nullptr);
    }
    while (node != nullptr) {
      Command* next = node->next;
      staging_.give_back(std::exchange(node->staging, {}));
      give_back(node);
      node = next;
    }
  }

  void loop() {
    if constexpr (requires(Command* c) { device_.keep(c); }) device_.begin([this](Command* c, const Error* e) { answer(c, e); });
    else device_.begin();
    Command* node = nullptr;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        if (node != nullptr) retire(node);
        asleep_ = true;
        arrived_.wait(lock, [this] { return first_ != nullptr || stopping_; });
        asleep_ = false;
        if (stopping_) {
          stopped_ = true;
          progressed_.notify_all();
          return;
        }
        node = first_;
        first_ = node->next;
        if (first_ == nullptr) last_ = nullptr;
      }
      if (Watch* stopwatch = timing_.load(std::memory_order_acquire); stopwatch != nullptr) {
        stopwatch->begin(*node);
        perform(*node);
        stopwatch->end(*node);
      } else {
        perform(*node);
      }
      if (node->tag == nullptr) continue;
      if constexpr (requires { device_.keep(node); }) keep(std::exchange(node, nullptr));
      else hand_over(std::exchange(node, nullptr));
    }
  }

  // The queue goes on; the device answers when it is done.
  void keep(Command* node) {
    const std::uint64_t ticket = node->ticket;
    device_.keep(node);
    const std::lock_guard lock(mutex_);
    finish(ticket);
  }

  void answer(Command* node, const Error* e) {
    if (e != nullptr) poison(*node, *e);
    node->failed = poisoned_.load(std::memory_order_acquire);
    {
      const std::lock_guard lock(mutex_);
      put_aside(node);
    }
    notify_();
  }

  void retire(Command* node) {
    node->next = std::exchange(freed_, node);
    finish(node->ticket);
  }

  void hand_over(Command* node) {
    node->failed = poisoned_.load(std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      put_aside(node);
      finish(node->ticket);
    }
    notify_();
  }

  void put_aside(Command* node) {
    node->next = nullptr;
    (done_last_ == nullptr ? done_first_ : done_last_->next) = node;
    done_last_ = node;
  }

  void finish(std::uint64_t ticket) {
    finished_.store(ticket, std::memory_order_release);
    if (waiting_ > 0) progressed_.notify_all();
  }

  void perform(Command& c) {
    if (c.kind == CommandKind::free) return device_.release(c.reservation);
    if (poisoned_.load(std::memory_order_relaxed)) return;
    try {
      switch (c.kind) {
        case CommandKind::launch: device_.run(c); break;
        case CommandKind::close: device_.finish(); break;
        case CommandKind::wait:
          if constexpr (requires { device_.wait(c); }) device_.wait(c);
          break;
        case CommandKind::reach:
          if constexpr (requires { device_.reach(c); }) device_.reach(c);
          break;
        case CommandKind::tune:
          if constexpr (requires { device_.tune(c); }) device_.tune(c);
          break;
        default:
          if constexpr (requires { device_.move(c); }) device_.move(c);
          else device_.copy(c.to, c.kind == CommandKind::write ? c.staging.data.get() : c.from, c.bytes, c.kind);
      }
    } catch (const Error& e) {
      poison(c, e);
    } catch (const std::bad_alloc&) {
      poison(c, Error("OutOfMemory", "the host has no memory left for a native structure"));
    } catch (const std::exception& e) {
      poison(c, Error("NativeError", e.what()));
    }
  }

  // The first failure stays; a device may answer with one while the queue meets another.
  void poison(const Command& c, const Error& e) {
    const std::lock_guard lock(mutex_);
    if (poisoned_.load(std::memory_order_relaxed)) return;
    failure_ = describe(c, e);
    poisoned_.store(true, std::memory_order_release);
  }

  D& device_;
  std::function<void()> notify_;
  // The owner's side.
  Command* spare_ = nullptr;
  std::vector<std::unique_ptr<Command[]>> chunks_;
  StagingPool staging_;
  std::uint64_t pushed_ = 0, allocations_ = 0, burst_ = 0, nodes_ = 0;
  std::unique_ptr<Watch> stopwatch_;
  // Shared.
  std::mutex mutex_;
  std::condition_variable arrived_, progressed_;
  Command *first_ = nullptr, *last_ = nullptr, *freed_ = nullptr, *done_first_ = nullptr, *done_last_ = nullptr;
  bool asleep_ = false, stopping_ = false, stopped_ = false;
  int waiting_ = 0;
  std::atomic<std::uint64_t> finished_{0};
  std::atomic<bool> poisoned_{false};
  std::atomic<Watch*> timing_{nullptr};  // what the thread notes into, while somebody wants to know
  Failure failure_;
  std::thread thread_;  // last: it starts when all else is there
};

}  // namespace lomo
