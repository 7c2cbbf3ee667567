// Test only: a double of libcuda on the host. Kernels are the host-compiled .cu files, by name, on fibers; device memory is the host's.
// LOMO_DOUBLE_SEED: the fibers' schedule; LOMO_DOUBLE_EAGER: see world.h; LOMO_DOUBLE_FAIL: the kernel that fails, or KERNEL:N, from its
// N-th launch on; LOMO_DOUBLE_MEMORY: MiB of the 'GPU'; LOMO_DOUBLE_CONTEXT: MiB that a context takes; LOMO_DOUBLE_REFUSE: MiB from which on
// an allocation is refused, whatever is free; LOMO_DOUBLE_NO_CODE: no module is for this GPU.
// LOMO_DOUBLE_HOLD: whoever waits for an event waits until it is unset;
// LOMO_DOUBLE_VERSION, LOMO_DOUBLE_DEVICES, LOMO_DOUBLE_CAPABILITY, LOMO_DOUBLE_HELD (MiB): what a test wants to meet.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "double/world.h"
#include "fiber/fiber.h"

namespace lomo::twin {

World& world() {
  static World* const w = new World;  // never destroyed: other threads may outlive static destructors
  return *w;
}

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == 0 ? otherwise : std::strtoull(text, nullptr, 10);
}

std::size_t capacity() { return setting("LOMO_DOUBLE_MEMORY", 4096) << 20; }
std::size_t held() { return setting("LOMO_DOUBLE_HELD", 0) << 20; }

void load_lazily(const std::string& what) {
  if (world().loaded.insert(what).second) world().startup += std::size_t{64} << 10;
}

namespace {

thread_local int device_of_thread = 0;

bool eager(cu::Stream s) { return (setting("LOMO_DOUBLE_EAGER", 0) >> s->number & 1) != 0; }

bool inside(const std::map<std::uintptr_t, std::size_t>& all, const void* p, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  auto next = all.upper_bound(at);
  if (next == all.begin()) return false;
  --next;
  return at + bytes <= next->first + next->second;
}

void lose(cu::Result result, const std::string& why) {
  World& w = world();
  if (w.lost != cu::success) return;
  w.lost = result;
  w.why = why;
}

}  // namespace

bool on_device(const void* p, std::size_t bytes) { return inside(world().device, p, bytes); }
bool in_pinned(const void* p, std::size_t bytes) { return inside(world().pinned, p, bytes); }

void advance(cu::Stream s, std::uint64_t position) {
  if (s->running && s->done < position) return lose(cu::launch_failed, "streams wait for one another in a circle");
  while (s->done < position && world().lost == cu::success) {
    s->running = true;
    bool over = true;
    spend(1e-3);
    try {
      over = s->work.front()();
    } catch (const std::exception& e) {
      lose(cu::launch_failed, e.what());
    }
    s->running = false;
    if (!over) return;
    s->work.pop_front();
    ++s->done;
  }
}

void spend(double milliseconds) { world().clock += milliseconds; }

void await(std::unique_lock<std::recursive_mutex>& lock, cu::Stream s, std::uint64_t position) {
  // Somebody else may destroy it while this thread waits.
  while (world().streams.count(s) != 0) {
    advance(s, position);
    if (s->done >= position || world().lost != cu::success) return world().progressed.notify_all();
    // Other ranks may be other processes.
    world().progressed.wait_for(lock, std::chrono::milliseconds(1));
  }
}

void enqueue_until(cu::Stream s, std::function<bool()> work) {
  s->work.push_back(std::move(work));
  ++s->enqueued;
  if (eager(s)) advance(s, s->enqueued);
  world().progressed.notify_all();
}

void enqueue(cu::Stream s, std::function<void()> work) {
  enqueue_until(s, [work = std::move(work)] {
    work();
    return true;
  });
}

int current_device() { return device_of_thread; }

}  // namespace lomo::twin

using namespace lomo;
using namespace lomo::cu;
using twin::world;

// Every entry point: one thread at a time, nothing more once the context is lost.
#define ENTER                                                        \
  std::unique_lock lock(world().mutex);                              \
  if (world().lost != success) return world().lost
#define EXPORT extern "C" __attribute__((visibility("default"))) Result

namespace {
StreamHandle* known(Stream s) {
  const auto it = world().streams.find(s);
  return it == world().streams.end() ? nullptr : it->second.get();
}
Result settle() { return world().lost; }
// All streams of this thread's device.
void await_all(std::unique_lock<std::recursive_mutex>& lock) {
  std::vector<StreamHandle*> mine;
  for (auto& [handle, s] : world().streams)
    if (s->device == twin::current_device()) mine.push_back(s.get());
  for (StreamHandle* s : mine) twin::await(lock, s, s->enqueued);
}
using twin::capacity;
using twin::held;
// Device memory comes in pages of 2 MiB.
std::size_t paged(std::size_t bytes) { return (bytes + (std::size_t{2} << 20) - 1) >> 21 << 21; }
std::size_t taken() { return world().used + world().startup + held(); }
// Whether LOMO_DOUBLE_FAIL names this launch.
bool fails(const char* kernel) {
  const char* text = std::getenv("LOMO_DOUBLE_FAIL");
  if (text == nullptr) return false;
  const std::size_t length = std::strlen(kernel);
  if (std::strncmp(text, kernel, length) != 0 || (text[length] != 0 && text[length] != ':')) return false;
  return ++world().named_launches >= (text[length] == ':' ? std::strtoull(text + length + 1, nullptr, 10) : 1);
}
}  // namespace

EXPORT cuInit(unsigned) { return twin::setting("LOMO_DOUBLE_DEVICES", 1) == 0 ? no_device : success; }
EXPORT cuDriverGetVersion(int* v) {
  *v = static_cast<int>(twin::setting("LOMO_DOUBLE_VERSION", 13000));
  return success;
}
EXPORT cuGetErrorName(Result r, const char** text) {
  *text = r == out_of_memory ? "CUDA_ERROR_OUT_OF_MEMORY" : r == launch_failed ? "CUDA_ERROR_LAUNCH_FAILED" : r == invalid_value ? "CUDA_ERROR_INVALID_VALUE" : r == no_binary_for_gpu ? "CUDA_ERROR_NO_BINARY_FOR_GPU" : "CUDA_ERROR";
  return success;
}
EXPORT cuGetErrorString(Result r, const char** text) {
  *text = r == world().lost && !world().why.empty() ? world().why.c_str() : "said by the host double";
  return success;
}
EXPORT cuDeviceGetCount(int* n) {
  *n = static_cast<int>(twin::setting("LOMO_DOUBLE_DEVICES", 1));
  return success;
}
EXPORT cuDeviceGet(Device* d, int i) {
  *d = i;
  return success;
}
EXPORT cuDeviceGetName(char* name, int n, Device) {
  std::snprintf(name, static_cast<std::size_t>(n), "lomo host double");
  return success;
}
EXPORT cuDeviceGetAttribute(int* v, int which, Device) {
  const int capability = static_cast<int>(twin::setting("LOMO_DOUBLE_CAPABILITY", 90));
  switch (which) {
    case multiprocessors: *v = 4; return success;
    case capability_major: *v = capability / 10; return success;
    case capability_minor: *v = capability % 10; return success;
    case shared_optin: *v = 99 * 1024; return success;
    default: return invalid_value;
  }
}
EXPORT cuDeviceTotalMem_v2(std::size_t* bytes, Device) {
  *bytes = capacity();
  return success;
}
EXPORT cuDeviceGetPCIBusId(char* text, int n, Device d) {
  std::snprintf(text, static_cast<std::size_t>(n), "0000:%02x:00.0", static_cast<unsigned>(d) + 1);
  return success;
}
EXPORT cuDevicePrimaryCtxRetain(Context* c, Device d) {
  const std::lock_guard lock(world().mutex);
  *c = &world().contexts.try_emplace(d, ContextHandle{d}).first->second;
  if (world().lost == success && world().retained++ == 0) world().startup = twin::setting("LOMO_DOUBLE_CONTEXT", 3) << 20;
  return world().lost;
}
EXPORT cuDevicePrimaryCtxRelease_v2(Device) {
  const std::lock_guard lock(world().mutex);
  if (world().retained > 0 && --world().retained == 0) {
    world().startup = 0;
    world().loaded.clear();
  }
  return success;
}
EXPORT cuCtxSetCurrent(Context c) {
  twin::device_of_thread = c == nullptr ? 0 : c->device;
  return success;
}
EXPORT cuCtxSynchronize() {
  ENTER;
  await_all(lock);
  return settle();
}
EXPORT cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  ENTER;
  *total = capacity();
  *free = taken() > capacity() ? 0 : capacity() - taken();
  return success;
}
EXPORT cuMemAlloc_v2(Address* at, std::size_t bytes) {
  ENTER;
  if (bytes == 0) return invalid_value;
  if (taken() + paged(bytes) > capacity() || bytes >= twin::setting("LOMO_DOUBLE_REFUSE", capacity() >> 20) << 20) return out_of_memory;
  void* p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (p == nullptr) return out_of_memory;
  std::memset(p, 0xcd, bytes);
  world().device[reinterpret_cast<std::uintptr_t>(p)] = bytes;
  world().used += paged(bytes);
  *at = reinterpret_cast<Address>(p);
  return success;
}
EXPORT cuMemFree_v2(Address at) {
  ENTER;
  const auto it = world().device.find(at);
  if (it == world().device.end()) return invalid_value;
  await_all(lock);  // as the driver does
  world().used -= paged(it->second);
  world().device.erase(it);
  std::free(reinterpret_cast<void*>(at));
  return settle();
}
EXPORT cuMemHostAlloc(void** p, std::size_t bytes, unsigned) {
  ENTER;
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*p == nullptr) return out_of_memory;
  std::memset(*p, 0xcd, bytes);
  world().pinned[reinterpret_cast<std::uintptr_t>(*p)] = bytes;
  return success;
}
EXPORT cuMemFreeHost(void* p) {
  ENTER;
  if (world().pinned.erase(reinterpret_cast<std::uintptr_t>(p)) == 0) return invalid_value;
  std::free(p);
  return success;
}
EXPORT cuMemsetD8Async(Address at, unsigned char value, std::size_t bytes, Stream s) {
  ENTER;
  void* p = reinterpret_cast<void*>(at);
  if (known(s) == nullptr || !twin::on_device(p, bytes)) return invalid_value;
  twin::enqueue(s, [=] { std::memset(p, value, bytes); });
  return settle();
}
EXPORT cuMemcpyAsync(Address to, Address from, std::size_t bytes, Stream s) {
  ENTER;
  if (known(s) == nullptr) return invalid_value;
  auto* target = reinterpret_cast<void*>(to);
  const auto* source = reinterpret_cast<const void*>(from);
  const auto place = [&](const void* p) { return twin::on_device(p, bytes) || twin::in_pinned(p, bytes); };
  // The addon copies asynchronously between these only: pageable memory would make the driver wait.
  if (!place(target) || !place(source)) return invalid_value;
  twin::enqueue(s, [=] {
    if (!(twin::on_device(target, bytes) || twin::in_pinned(target, bytes)) || !(twin::on_device(source, bytes) || twin::in_pinned(source, bytes)))
      throw std::runtime_error("a copy ran after its memory was freed");
    std::memmove(target, source, bytes);
  });
  return settle();
}
EXPORT cuStreamCreate(Stream* s, unsigned flags) {
  ENTER;
  if (flags != stream_non_blocking) return invalid_value;
  auto made = std::make_unique<StreamHandle>();
  made->number = world().streams_made++ % 4;
  made->device = twin::current_device();
  *s = made.get();
  world().streams[*s] = std::move(made);
  return success;
}
EXPORT cuStreamDestroy_v2(Stream s) {
  ENTER;
  if (known(s) == nullptr) return invalid_value;
  twin::await(lock, s, s->enqueued);
  world().streams.erase(s);
  return settle();
}
EXPORT cuStreamSynchronize(Stream s) {
  ENTER;
  if (known(s) == nullptr) return invalid_value;
  twin::await(lock, s, s->enqueued);
  return settle();
}
EXPORT cuStreamWaitEvent(Stream s, Event e, unsigned) {
  ENTER;
  if (known(s) == nullptr || world().events.count(e) == 0) return invalid_value;
  // What the event stands for now; it may be recorded again before this runs.
  StreamHandle* other = known(e->stream);
  const std::uint64_t position = e->position;
  if (other != nullptr)
    twin::enqueue_until(s, [=] {
      twin::advance(other, position);
      return other->done >= position;
    });
  return settle();
}
EXPORT cuEventCreate(Event* e, unsigned flags) {
  ENTER;
  auto made = std::make_unique<EventHandle>();
  made->timed = (flags & event_no_timing) == 0;
  *e = made.get();
  world().events[*e] = std::move(made);
  return success;
}
EXPORT cuEventDestroy_v2(Event e) {
  ENTER;
  return world().events.erase(e) == 0 ? invalid_value : success;
}
EXPORT cuEventRecord(Event e, Stream s) {
  ENTER;
  if (known(s) == nullptr || world().events.count(e) == 0) return invalid_value;
  e->stream = s;
  if (e->timed) {
    e->at = std::make_shared<double>(-1);
    twin::enqueue(s, [at = e->at] { *at = world().clock; });
  }
  e->position = s->enqueued;
  return settle();
}
EXPORT cuEventElapsedTime(float* milliseconds, Event from, Event to) {
  ENTER;
  if (world().events.count(from) == 0 || world().events.count(to) == 0 || from->at == nullptr || to->at == nullptr) return invalid_value;
  if (*from->at < 0 || *to->at < 0) return not_ready;
  *milliseconds = static_cast<float>(*to->at - *from->at);
  return success;
}
EXPORT cuEventQuery(Event e) {
  ENTER;
  if (world().events.count(e) == 0) return invalid_value;
  const StreamHandle* s = known(e->stream);
  return s == nullptr || s->done >= e->position ? success : not_ready;
}
EXPORT cuEventSynchronize(Event e) {
  while (twin::setting("LOMO_DOUBLE_HOLD", 0) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ENTER;
  if (world().events.count(e) == 0) return invalid_value;
  if (StreamHandle* s = known(e->stream); s != nullptr) twin::await(lock, s, e->position);
  return settle();
}
EXPORT cuModuleLoadData(Module* m, const void* image) {
  ENTER;
  if (image == nullptr) return invalid_image;
  if (twin::setting("LOMO_DOUBLE_NO_CODE", 0) != 0) return no_binary_for_gpu;
  *m = &world().module;
  return success;
}
EXPORT cuModuleUnload(Module) { return success; }
EXPORT cuModuleGetFunction(Function* f, Module, const char* name) {
  ENTER;
  const fiber::Entry* entry = fiber::find(name);
  if (entry == nullptr) return not_found;
  twin::load_lazily(name);
  auto& made = world().functions[name];
  if (made == nullptr) made = std::make_unique<FunctionHandle>(FunctionHandle{entry});
  *f = made.get();
  return success;
}
EXPORT cuFuncSetAttribute(Function, int which, int value) { return which == function_max_dynamic_shared && value <= 99 * 1024 ? success : invalid_value; }
EXPORT cuLaunchKernel(Function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, Stream s, void** parameters, void**) {
  ENTER;
  if (known(s) == nullptr) return invalid_value;
  const auto* entry = static_cast<const fiber::Entry*>(f->entry);
  // Parameters are taken now, as the driver does.
  const auto* bytes = static_cast<const unsigned char*>(parameters[0]);
  auto args = std::make_shared<std::vector<std::uint64_t>>((entry->bytes + 7) / 8);
  std::memcpy(args->data(), bytes, entry->bytes);
  ++world().launches;
  if (fails(entry->name)) twin::enqueue(s, [] { throw std::runtime_error("planted by a test"); });
  twin::enqueue(s, [=] { fiber::run({entry, args->data(), {gx, gy, gz}, {bx, by, bz}, shared}, {twin::setting("LOMO_DOUBLE_SEED", 0)}); });
  return settle();
}
