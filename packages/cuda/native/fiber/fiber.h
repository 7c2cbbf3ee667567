// Test only: the threads of a CUDA block as fibers of one host thread. Control changes hands only where threads meet (a barrier, a warp's
// exchange), in an order that the schedule chooses; what kernels may not do there is a Failure with the thread and the line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

namespace lomo::fiber {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  unsigned count() const { return x * y * z; }
};

// A kernel did what no order of its threads makes right; the text names it.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// 0: warp after warp, each as far as it goes; 1: the same from the last warp down; else threads and blocks in a random order.
struct Schedule {
  std::uint64_t seed = 0;
};

// A kernel of a host-compiled .cu file. `args` points to its one argument.
struct Entry {
  const char* name = nullptr;
  std::size_t bytes = 0;
  unsigned threads = 0;
  void (*body)(const void* args) = nullptr;
};

// What LOMO_KERNEL adds to; ended by a null in `next`.
struct Registered {
  Entry entry;
  const Registered* next;
  Registered(const char* name, std::size_t bytes, unsigned threads, void (*body)(const void*));
};
// The kernel of that name in this binary, or null.
const Entry* find(const char* name);

struct Launch {
  const Entry* entry = nullptr;
  const void* args = nullptr;
  Dim3 grid, block;
  std::size_t dynamic_shared = 0;
};

// Runs every block of the launch. Throws Failure.
void run(const Launch& launch, Schedule schedule);

// What one lane gives and all lanes of the mask see.
constexpr std::size_t exchange_bytes = 64;
struct Exchange {
  std::uint32_t mask = 0, arrived = 0, seen = 0;
  bool open = false;
  std::source_location at;
  alignas(16) unsigned char lane[32][exchange_bytes];
  // What one lane computes for all of them, where an exchange is more than a swap.
  mutable bool computed = false;
  alignas(16) mutable float result[32][4];
};

// The thread that runs now. All of it is called from inside a kernel.
const Dim3& thread_index();
const Dim3& block_index();
const Dim3& block_size();
const Dim3& grid_size();
unsigned lane_index();

void barrier(const std::source_location& at);
// Waits until every lane of `mask` has given its bytes; hands back what they gave. `done` follows when it was read.
const Exchange& exchange(std::uint32_t mask, const void* bytes, std::size_t count, const std::source_location& at);
void done(const Exchange& e);
// Shared memory of this block, by the address of a static that stands for the declaration; poisoned when a block first asks.
void* shared(const void* declaration, std::size_t bytes);
void* dynamic_shared();
// The destination is poison until the thread waits.
void copy_async(void* to, const void* from, unsigned bytes, unsigned used);
void commit_copies();
void wait_copies(unsigned groups_left);
[[noreturn]] void fail(const std::string& what, const std::source_location& at);

}  // namespace lomo::fiber
