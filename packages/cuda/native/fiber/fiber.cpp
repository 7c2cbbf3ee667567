// Test only: the scheduler behind fiber.h.
#include "fiber/fiber.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <numeric>
#include <random>

#include "fiber/context.h"

namespace lomo::fiber {
namespace {

constexpr std::size_t stack_bytes = std::size_t{256} << 10;
constexpr unsigned most_threads = 1024;
constexpr unsigned char poison = 0xff;

enum class State : std::uint8_t { runnable, barrier, warp, ended };

struct Copy {
  void* to;
  const void* from;
  unsigned bytes, used;
};

struct Thread {
  Context context;
  Dim3 index;
  unsigned number = 0;
  State state = State::runnable;
  std::source_location at;
  Exchange* waits_for = nullptr;
  std::deque<std::vector<Copy>> groups;  // committed
  std::vector<Copy> open;
};

struct Warp {
  std::uint32_t exists = 0, runnable = 0;
  std::vector<std::unique_ptr<Exchange>> exchanges;
};

struct Shared {
  const void* declaration;
  std::unique_ptr<unsigned char[]> data;
};

const Registered*& registered() {
  static const Registered* first = nullptr;
  return first;
}

std::string spell(const Dim3& d) { return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")"; }
std::string spell(const std::source_location& at) {
  const std::string file = at.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(at.line());
}

class Machine;
thread_local Machine* machine = nullptr;

// One host thread's stacks and the block that it runs.
class Machine {
 public:
  Machine() {
    stacks_ = static_cast<char*>(mmap(nullptr, stack_bytes * most_threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks_ == MAP_FAILED) throw std::bad_alloc();
    // A page before each stack: an overflow ends the process instead of writing into a neighbour.
    for (unsigned i = 0; i < most_threads; ++i) mprotect(stacks_ + i * stack_bytes, guard_bytes, PROT_NONE);
  }
  ~Machine() { munmap(stacks_, stack_bytes * most_threads); }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void run(const Launch& launch, Schedule schedule) {
    launch_ = &launch;
    schedule_ = schedule;
    random_.seed(schedule.seed);
    std::vector<std::uint64_t> order(std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z);
    std::iota(order.begin(), order.end(), std::uint64_t{0});
    if (schedule.seed == 1) std::reverse(order.begin(), order.end());
    if (schedule.seed > 1) std::shuffle(order.begin(), order.end(), random_);
    for (const std::uint64_t i : order) {
      block_ = {static_cast<unsigned>(i % launch.grid.x), static_cast<unsigned>(i / launch.grid.x % launch.grid.y), static_cast<unsigned>(i / launch.grid.x / launch.grid.y)};
      run_block();
    }
  }

  Thread& self() { return *current_; }
  Warp& warp() { return warps_[current_->number / 32]; }
  const Launch& launch() const { return *launch_; }
  const Dim3& block() const { return block_; }

  // The current thread rests; somebody makes it runnable again.
  void rest(State state, const std::source_location& at) {
    Thread& me = *current_;
    me.state = state;
    me.at = at;
    if (state != State::runnable) warp().runnable &= ~(1u << me.number % 32);
    leave(me, state == State::ended);
  }

  void wake(Thread& t) {
    t.state = State::runnable;
    warps_[t.number / 32].runnable |= 1u << t.number % 32;
  }

  void barrier(const std::source_location& at) {
    Thread& me = *current_;
    if (ended_ > 0) fail("waits at __syncthreads while " + std::to_string(ended_) + " threads of the block have returned", at);
    if (waiting_ > 0 && at.line() != barrier_at_.line()) fail("waits at a __syncthreads other than " + spell(barrier_at_) + ", where " + std::to_string(waiting_) + " threads wait", at);
    barrier_at_ = at;
    if (++waiting_ < threads_.size()) return rest(State::barrier, at);
    waiting_ = 0;
    for (Thread& t : threads_)
      if (&t != &me) wake(t);
    // Going on is one order among others: a random schedule may begin elsewhere.
    if (schedule_.seed > 1) rest(State::runnable, at);
  }

  Exchange& meet(std::uint32_t mask, const void* bytes, std::size_t count, const std::source_location& at) {
    Thread& me = *current_;
    Warp& w = warp();
    const std::uint32_t lane = me.number % 32, bit = 1u << lane;
    if ((mask & bit) == 0) fail("calls a warp's exchange with a mask that it is not in", at);
    mask &= w.exists;
    Exchange* e = nullptr;
    for (const auto& candidate : w.exchanges)
      if (candidate->open && candidate->mask == mask && (candidate->arrived & bit) == 0) e = candidate.get();
    if (e == nullptr) {
      for (const auto& candidate : w.exchanges)
        if (!candidate->open) e = candidate.get();
      if (e == nullptr) e = w.exchanges.emplace_back(std::make_unique<Exchange>()).get();
      e->mask = mask;
      e->arrived = e->seen = 0;
      e->open = true;
      e->computed = false;
      e->at = at;
    }
    // Names are most often the same pointer.
    if (e->at.line() != at.line() || (e->at.function_name() != at.function_name() && std::strcmp(e->at.function_name(), at.function_name()) != 0))
      fail("meets its warp at another place than " + spell(e->at), at);
    if (count > 0) std::memcpy(e->lane[lane], bytes, count);
    e->arrived |= bit;
    if (e->arrived != mask) {
      me.waits_for = e;
      rest(State::warp, at);
      me.waits_for = nullptr;
      return *e;
    }
    for (std::uint32_t l = 0; l < 32; ++l) {
      Thread* t = (mask >> l & 1) != 0 ? &threads_[me.number - lane + l] : nullptr;
      if (t != nullptr && t->state == State::warp && t->waits_for == e) wake(*t);
    }
    if (schedule_.seed > 1) rest(State::runnable, at);
    return *e;
  }

  void* shared(const void* declaration, std::size_t bytes) {
    for (const Shared& s : shared_)
      if (s.declaration == declaration) return s.data.get();
    // Its own allocation, 16-byte aligned by malloc: the address sanitizer sees its ends.
    shared_.push_back({declaration, std::make_unique_for_overwrite<unsigned char[]>(bytes)});
    std::memset(shared_.back().data.get(), poison, bytes);
    return shared_.back().data.get();
  }

  [[noreturn]] void fail(const std::string& what, const std::source_location& at) {
    failure_ = std::string(launch_->entry->name) + ", block " + spell(block_) + ", thread " + spell(current_->index) + " at " + spell(at) + ": " + what;
    leave(*current_, false);
    __builtin_unreachable();
  }

 private:
  static void enter() {
    Machine& m = *machine;
    arrive(m.current_->context, m.host_);
    m.launch_->entry->body(m.launch_->args);
    Thread& me = *m.current_;
    if (!me.open.empty() || !me.groups.empty()) m.fail("returns before it has waited for its asynchronous copies", std::source_location::current());
    ++m.ended_;
    if (m.waiting_ > 0) m.fail("returns while " + std::to_string(m.waiting_) + " threads of its block wait at " + spell(m.barrier_at_), std::source_location::current());
    m.rest(State::ended, std::source_location::current());
  }

  void leave(Thread& t, bool forever) { change(t.context, host_, host_, forever); }

  // The next thread to run, or null where none can.
  Thread* next() {
    const auto n = static_cast<unsigned>(warps_.size());
    if (schedule_.seed > 1) {
      unsigned able = 0;
      for (const Warp& w : warps_) able += w.runnable != 0;
      if (able == 0) return nullptr;
      unsigned skip = static_cast<unsigned>(random_() % able);
      for (unsigned i = 0;; ++i) {
        if (warps_[i].runnable == 0 || skip-- > 0) continue;
        unsigned lanes = static_cast<unsigned>(random_() % static_cast<unsigned>(__builtin_popcount(warps_[i].runnable)));
        std::uint32_t left = warps_[i].runnable;
        while (lanes-- > 0) left &= left - 1;
        return &threads_[32 * i + static_cast<unsigned>(__builtin_ctz(left))];
      }
    }
    for (unsigned step = 0; step < n; ++step) {
      const unsigned i = schedule_.seed == 1 ? (at_warp_ + n - step) % n : (at_warp_ + step) % n;
      if (warps_[i].runnable == 0) continue;
      at_warp_ = i;
      return &threads_[32 * i + static_cast<unsigned>(schedule_.seed == 1 ? 31 - __builtin_clz(warps_[i].runnable) : __builtin_ctz(warps_[i].runnable))];
    }
    return nullptr;
  }

  void run_block() {
    const unsigned count = launch_->block.count();
    threads_.resize(count);
    warps_.resize((count + 31) / 32);
    shared_.clear();
    failure_.clear();
    ended_ = waiting_ = 0;
    at_warp_ = schedule_.seed == 1 ? static_cast<unsigned>(warps_.size()) - 1 : 0;
    for (unsigned w = 0; w < warps_.size(); ++w) {
      const unsigned lanes = std::min(32u, count - 32 * w);
      warps_[w].exists = warps_[w].runnable = lanes == 32 ? ~0u : (1u << lanes) - 1;
      for (const auto& e : warps_[w].exchanges) e->open = false;
    }
    for (unsigned i = 0; i < count; ++i) {
      Thread& t = threads_[i];
      t.number = i;
      t.index = {i % launch_->block.x, i / launch_->block.x % launch_->block.y, i / launch_->block.x / launch_->block.y};
      t.state = State::runnable;
      t.waits_for = nullptr;
      t.groups.clear();
      t.open.clear();
      prepare(t.context, stacks_ + i * stack_bytes, stack_bytes, &enter);
    }
    while (ended_ < count) {
      Thread* t = next();
      if (t == nullptr) {
        for (const Thread& stuck : threads_)
          if (stuck.state == State::warp || stuck.state == State::barrier)
            throw Failure(std::string(launch_->entry->name) + ", block " + spell(block_) + ": thread " + spell(stuck.index) + " waits at " + spell(stuck.at) + " for threads that never come");
      }
      current_ = t;
      change(host_, t->context, host_, false);
      if (!failure_.empty()) throw Failure(failure_);
    }
  }

  char* stacks_;
  const Launch* launch_ = nullptr;
  Schedule schedule_;
  std::mt19937_64 random_;
  Dim3 block_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<Shared> shared_;
  Thread* current_ = nullptr;
  Context host_;
  unsigned ended_ = 0, waiting_ = 0, at_warp_ = 0;
  std::source_location barrier_at_;
  std::string failure_;
};

}  // namespace

Registered::Registered(const char* name, std::size_t bytes, unsigned threads, void (*body)(const void*)) : entry{name, bytes, threads, body}, next(registered()) { registered() = this; }

const Entry* find(const char* name) {
  for (const Registered* r = registered(); r != nullptr; r = r->next)
    if (std::strcmp(r->entry.name, name) == 0) return &r->entry;
  return nullptr;
}

void run(const Launch& launch, Schedule schedule) {
  if (launch.block.count() == 0 || launch.block.count() > most_threads) throw Failure(std::string(launch.entry->name) + ": a block of " + std::to_string(launch.block.count()) + " threads");
  if (launch.block.count() > launch.entry->threads) throw Failure(std::string(launch.entry->name) + ": a block of " + std::to_string(launch.block.count()) + " threads, compiled for at most " + std::to_string(launch.entry->threads));
  if (launch.grid.count() == 0 || launch.grid.y > 65535 || launch.grid.z > 65535) throw Failure(std::string(launch.entry->name) + ": a grid of " + spell(launch.grid) + " blocks");
  thread_local Machine mine;
  machine = &mine;
  mine.run(launch, schedule);
}

const Dim3& thread_index() { return machine->self().index; }
const Dim3& block_index() { return machine->block(); }
const Dim3& block_size() { return machine->launch().block; }
const Dim3& grid_size() { return machine->launch().grid; }
unsigned lane_index() { return machine->self().number % 32; }

void barrier(const std::source_location& at) { machine->barrier(at); }
const Exchange& exchange(std::uint32_t mask, const void* bytes, std::size_t count, const std::source_location& at) { return machine->meet(mask, bytes, count, at); }
void done(const Exchange& e) {
  Exchange& mine = const_cast<Exchange&>(e);
  mine.seen |= 1u << lane_index();
  if (mine.seen == mine.mask) mine.open = false;
}
void* shared(const void* declaration, std::size_t bytes) { return machine->shared(declaration, bytes); }
void* dynamic_shared() {
  static const char declaration = 0;
  return machine->shared(&declaration, std::max<std::size_t>(machine->launch().dynamic_shared, 1));
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned used) {
  std::memset(to, poison, bytes);
  machine->self().open.push_back({to, from, bytes, used});
}
void commit_copies() {
  Thread& me = machine->self();
  me.groups.push_back(std::move(me.open));
  me.open.clear();
}
void wait_copies(unsigned groups_left) {
  Thread& me = machine->self();
  for (; me.groups.size() > groups_left; me.groups.pop_front())
    for (const Copy& c : me.groups.front()) {
      std::memcpy(c.to, c.from, c.used);
      std::memset(static_cast<char*>(c.to) + c.used, 0, c.bytes - c.used);
    }
}
void fail(const std::string& what, const std::source_location& at) { machine->fail(what, at); }

}  // namespace lomo::fiber
