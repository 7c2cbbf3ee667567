// Test only: what the doubles of libcuda, cuBLASLt and NCCL share: streams whose work waits until somebody asks for it, memory with bounds.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "driver/api.h"

namespace lomo::cu {

// Work is done in the order of its stream, at the latest moment that events and synchronisation allow, or at once where the stream's bit
// of LOMO_DOUBLE_EAGER is set (by the order in which a backend made them: compute 1, receive 2, send 4, offload 8). Whoever forgot to
// wait is early in one of the sixteen, or late in another. A piece of work returns false while it cannot be done yet, because another rank
// has not come so far; it is asked again.
struct StreamHandle {
  std::deque<std::function<bool()>> work;
  std::uint64_t enqueued = 0, done = 0;
  bool running = false;
  unsigned number = 0;
  int device = 0;
};
struct EventHandle {
  StreamHandle* stream = nullptr;  // null: never recorded, hence done
  std::uint64_t position = 0;
  bool timed = false;
  std::shared_ptr<double> at;  // the double's clock when the last record was reached; null before
};
struct ModuleHandle {};
struct FunctionHandle {
  const void* entry = nullptr;
};
struct ContextHandle {
  int device = 0;
};

}  // namespace lomo::cu

namespace lomo::twin {

struct World {
  std::recursive_mutex mutex;
  std::condition_variable_any progressed;
  std::map<cu::Stream, std::unique_ptr<cu::StreamHandle>> streams;
  std::map<cu::Event, std::unique_ptr<cu::EventHandle>> events;
  std::map<std::uintptr_t, std::size_t> device, pinned;  // start -> bytes
  std::map<std::string, std::unique_ptr<cu::FunctionHandle>> functions;
  std::set<std::string> loaded;
  cu::ModuleHandle module;
  std::map<int, cu::ContextHandle> contexts;  // by device
  std::size_t used = 0;     // allocations, in pages of the device
  std::size_t startup = 0;  // what the context takes, and code that was loaded when it was first wanted
  int retained = 0;
  cu::Result lost = cu::success;  // sticky
  std::string why;
  double clock = 0;  // milliseconds: what the work done so far costs on the 'GPU'
  std::uint64_t launches = 0, named_launches = 0;  // named: of the kernel that LOMO_DOUBLE_FAIL names
  unsigned streams_made = 0;
};
World& world();

// Adds to the clock, within work: a piece takes a microsecond, and what it spends.
void spend(double milliseconds);
// Adds work to a stream. Work that throws loses the context.
void enqueue(cu::Stream stream, std::function<void()> work);
void enqueue_until(cu::Stream stream, std::function<bool()> work);
// Does a stream's work up to a position, or as far as it goes now.
void advance(cu::Stream stream, std::uint64_t position);
// Does it, and waits for other ranks. The lock is the world's, held once.
void await(std::unique_lock<std::recursive_mutex>& lock, cu::Stream stream, std::uint64_t position);
// The device whose context this thread works in.
int current_device();
// Whether [p, p + bytes) lies in one allocation of the device, or of pinned memory.
bool on_device(const void* p, std::size_t bytes);
bool in_pinned(const void* p, std::size_t bytes);
std::uint64_t setting(const char* name, std::uint64_t otherwise);
// Bytes of the 'GPU', and of them those that others hold.
std::size_t capacity();
std::size_t held();
// Device memory that code takes when it is first wanted, as the driver and cuBLASLt do.
void load_lazily(const std::string& what);

}  // namespace lomo::twin
