// The executor with a device whose work outlives its commands, as a GPU's does: three threads, many reads in flight, failures from two of
// them, stops in the middle. run.sh builds it with the thread sanitizer.
#include <cstdio>
#include <cstdlib>
#include <deque>

#include "lomo/executor.h"

namespace {

using namespace lomo;

// Reads are answered by a thread of its own, in order; a read of `bytes` 13 fails there, a launch with an attribute fails at once.
class SlowDevice {
 public:
  using Answer = std::function<void(Command*, const Error*)>;
  ~SlowDevice() { quiesce(); }

  void begin(Answer answer) {
    answer_ = std::move(answer);
    thread_ = std::thread([this] { loop(); });
  }
  void run(Command& c) {
    if (c.attributes[0] != 0) throw Error("Planted", "by the test");
    ++value;
  }
  void move(Command& c) {
    if (c.kind == CommandKind::read) *static_cast<long*>(c.to) = value;
  }
  void release(const Reservation&) {}
  void finish() {}
  void keep(Command* c) {
    {
      const std::lock_guard lock(mutex_);
      kept_.push_back(c);
    }
    arrived_.notify_one();
  }
  void quiesce() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    arrived_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  long value = 0;  // of the executor's thread

 private:
  void loop() {
    for (;;) {
      Command* c;
      {
        std::unique_lock lock(mutex_);
        arrived_.wait(lock, [this] { return !kept_.empty() || stopping_; });
        if (stopping_) return;
        c = kept_.front();
        kept_.pop_front();
      }
      const Error e("PlantedRead", "by the test");
      answer_(c, c->bytes == 13 ? &e : nullptr);
    }
  }
  Answer answer_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Command*> kept_;
  bool stopping_ = false;
  std::thread thread_;
};

void expect(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "executor_test: %s\n", what);
  std::exit(1);
}

struct Run {
  SlowDevice device;
  std::atomic<int> woken{0};
  Executor<SlowDevice> executor{device, [this] { ++woken; }};
  long seen[512] = {};
  int answered = 0, failed = 0;
  Kernel kernel{"planted", "", nullptr, nullptr, nullptr};

  ~Run() {
    executor.stop();
    device.quiesce();
  }
  void launch(double fails) {
    Command* c = executor.take();
    c->kind = CommandKind::launch;
    c->kernel = &kernel;
    c->tag = nullptr;
    c->attributes[0] = fails;
    executor.push(c);
  }
  void read(int i, std::size_t bytes) {
    Command* c = executor.take();
    c->kind = CommandKind::read;
    c->tag = &seen[i];
    c->to = &seen[i];
    c->bytes = bytes;
    executor.push(c);
  }
  void collect() {
    for (Command *next, *c = executor.completed(); c != nullptr; c = next) {
      next = c->next;
      expect(c->tag == &seen[answered], "reads are answered in order");
      ++answered;
      failed += c->failed ? 1 : 0;
      c->tag = nullptr;
      executor.give_back(c);
    }
  }
  void collect_all(int n) {
    while (answered < n) {
      collect();
      std::this_thread::yield();
    }
  }
};

}  // namespace

int main() {
  {
    Run r;
    for (int i = 0; i < 512; ++i) {
      r.launch(0);
      const int staged[4] = {i, i, i, i};
      Command* c = r.executor.take();
      c->kind = CommandKind::write;
      c->tag = nullptr;
      c->staging = r.executor.stage(staged, sizeof staged);
      r.executor.push(c);
      r.read(i, 8);
      r.collect();
    }
    r.collect_all(512);
    r.executor.drain();
    expect(r.failed == 0 && r.woken == 512, "every read is answered, and somebody is woken for it");
    for (int i = 0; i < 512; ++i) expect(r.seen[i] == i + 1, "a read sees the work before it and no other");
  }
  {
    // A failure on the answering thread and one on the executor's: the first stays, whichever it is.
    Run r;
    for (int i = 0; i < 64; ++i) {
      r.read(i, i == 20 ? 13 : 8);
      r.launch(i == 20 ? 1 : 0);
    }
    r.collect_all(64);
    expect(r.executor.poisoned() && r.failed >= 43 && r.failed <= 64, "what comes after a failure fails");
    const std::string& code = r.executor.failure().code;
    expect(code == "PlantedRead" || code == "Planted", "the failure is the planted one");
  }
  for (int round = 0; round < 50; ++round) {
    // Stopped with reads in flight.
    Run r;
    for (int i = 0; i < round; ++i) r.read(i, 8);
  }
  std::puts("executor: reads in order, failures from two threads, stops with work in flight");
}
