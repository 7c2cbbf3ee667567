// Runs kernels and copies on a GPU through the driver.
#include "addon/device.h"

#include <cmath>
#include <cstring>

#include "addon/launch.h"
#include "addon/tables.h"

namespace lomo {
namespace {

std::string text(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
}

std::vector<std::string> list(const Napi::Object& options, const char* name) {
  const auto array = options.Get(name).As<Napi::Array>();
  std::vector<std::string> all;
  for (std::uint32_t i = 0; i < array.Length(); ++i) all.push_back(array.Get(i).As<Napi::String>().Utf8Value());
  return all;
}

cu::Address address(const void* p) { return reinterpret_cast<cu::Address>(p); }

std::string gib(double bytes) {
  char t[32];
  std::snprintf(t, sizeof t, "%.2f GiB", bytes / (1024.0 * 1024 * 1024));
  return t;
}

}  // namespace

const KernelSet& CudaDevice::kernels() const { return kernel_set; }

CudaDevice::CudaDevice(const Napi::Object& options)
    : driver_(text(options, "driver")), ordinal_(options.Get("device").As<Napi::Number>().Int32Value()), transfers_(driver_), nvtx_(text(options, "nvtx")) {
  if (ordinal_ < 0 || ordinal_ >= driver_.devices())
    throw Error("BadOption", "cuda: device " + std::to_string(ordinal_) + " is not one of the " + std::to_string(driver_.devices()) + " GPUs that the driver sees, counted from 0");
  driver_.check(driver_.device_get(&device_, ordinal_), "cuDeviceGet");
  char name[256] = "";
  driver_.check(driver_.device_name(name, sizeof name, device_), "cuDeviceGetName");
  name_ = name;
  int major = 0, minor = 0;
  driver_.check(driver_.device_attribute(&major, cu::capability_major, device_), "cuDeviceGetAttribute");
  driver_.check(driver_.device_attribute(&minor, cu::capability_minor, device_), "cuDeviceGetAttribute");
  driver_.check(driver_.device_attribute(&multiprocessors_, cu::multiprocessors, device_), "cuDeviceGetAttribute");
  driver_.check(driver_.device_memory(&memory_, device_), "cuDeviceTotalMem_v2");
  gpu_ = "sm_" + std::to_string(major) + std::to_string(minor);
  const int architecture = 10 * major + minor;
  if (major < 8) throw Error("WrongArchitecture", "cuda: " + name_ + " is " + gpu_ + "; lomo's kernels need sm_80 (Ampere) or newer");
  context_ = std::make_unique<Context>(driver_, text(options, "cublasLt"), text(options, "nccl"), list(options, "folders"));
  context_->architecture = architecture;
  driver_.check(driver_.context_retain(&handle_, device_), "cuDevicePrimaryCtxRetain");
  try {
    open();
  } catch (...) {
    shut();  // a backend that was not made holds no memory of the GPU
    throw;
  }
}

void CudaDevice::open() {
  driver_.check(driver_.context_set(handle_), "cuCtxSetCurrent");
  context_->functions.load(name_ == "lomo host double" ? "host double" : gpu_);
  for (Queue& q : queues_) {
    driver_.check(driver_.stream_create(&q.stream, cu::stream_non_blocking), "cuStreamCreate");
    for (cu::Event& e : q.events) driver_.check(driver_.event_create(&e, cu::event_no_timing), "cuEventCreate");
  }
  cu::Address cell = 0;
  driver_.check(driver_.memory_allocate(&cell, 64), "cuMemAlloc_v2");
  context_->fault = reinterpret_cast<std::int32_t*>(cell);
  driver_.check(driver_.memset8(cell, 0, 64, queues_[0].stream), "cuMemsetD8Async");
  driver_.check(driver_.stream_synchronize(queues_[0].stream), "cuStreamSynchronize");
  transfers_.open(handle_, context_->fault);
  context_->products.open();
}

CudaDevice::~CudaDevice() { shut(); }

void CudaDevice::shut() {
  // Results do not matter here: a lost context refuses everything, and there is nothing left to save.
  if (handle_ == nullptr) return;
  driver_.context_set(handle_);
  context_->communicators.close();  // first: work that waits for other ranks would never end
  driver_.context_synchronize();
  if (context_->fault != nullptr) driver_.memory_free(address(context_->fault));
  transfers_.close();
  for (const auto& pair : pairs_)
    for (const cu::Event e : pair)
      if (e != nullptr) driver_.event_destroy(e);
  pairs_.clear();
  for (Queue& q : queues_) {
    for (const cu::Event e : q.events)
      if (e != nullptr) driver_.event_destroy(e);
    if (q.stream != nullptr) driver_.stream_destroy(q.stream);
  }
  context_.reset();
  driver_.context_release(device_);
}

Napi::Value CudaDevice::facts(Napi::Env env) const {
  auto o = Napi::Object::New(env);
  o.Set("device", ordinal_);
  o.Set("name", name_);
  o.Set("architecture", gpu_);
  o.Set("multiprocessors", multiprocessors_);
  o.Set("memory", static_cast<double>(memory_));
  o.Set("kernels", architectures);
  o.Set("waits", static_cast<double>(transfers_.waits()));
  auto libraries = Napi::Array::New(env, 2);
  const auto add = [&](std::uint32_t i, const char* name, const std::string& version, const std::string& path) {
    auto entry = Napi::Object::New(env);
    entry.Set("name", name);
    entry.Set("version", version);
    entry.Set("path", path);
    libraries.Set(i, entry);
  };
  add(0, "CUDA driver", std::to_string(driver_.version() / 1000) + "." + std::to_string(driver_.version() % 1000 / 10), driver_.path());
  add(1, "cuBLASLt", context_->products.version(), context_->products.path());
  o.Set("libraries", libraries);
  return o;
}

Napi::Value CudaDevice::algorithms(Napi::Env env) const {
  const auto choices = context_->products.choices().list();
  auto all = Napi::Array::New(env, choices.size());
  for (std::uint32_t i = 0; i < choices.size(); ++i) {
    auto o = Napi::Object::New(env);
    o.Set("product", choices[i].product);
    o.Set("algorithm", choices[i].algorithm);
    o.Set("microseconds", choices[i].microseconds);
    o.Set("candidates", choices[i].candidates);
    auto rows = Napi::Array::New(env);
    for (std::uint32_t r = 0; r < choices[i].not_for.size(); ++r) rows.Set(r, static_cast<double>(choices[i].not_for[r]));
    o.Set("notFor", rows);
    all.Set(i, o);
  }
  return all;
}

void CudaDevice::adopt(const Napi::Array& choices) {
  std::vector<Recorded> read;
  for (std::uint32_t i = 0; i < choices.Length(); ++i) {
    const auto one = choices.Get(i).As<Napi::Object>();
    read.push_back({text(one, "product"), text(one, "algorithm"), 0, 0, {}});
  }
  context_->products.choices().adopt(read);
}

Reservation CudaDevice::reserve(std::int32_t place, double bytes, std::size_t reserved) {
  if (!(bytes > 0 && bytes <= 9e15)) throw Error("BadSize", "a memory of " + std::to_string(bytes) + " bytes was asked for; sizes are positive");
  const auto asked = static_cast<std::size_t>(bytes);
  Reservation r{nullptr, asked, asked, place};
  driver_.check(driver_.context_set(handle_), "cuCtxSetCurrent");
  if (place == 1) {
    const cu::Result result = driver_.host_allocate(&r.data, asked, cu::host_portable);
    if (result == cu::out_of_memory) throw Error("OutOfMemory", "cuda: " + std::to_string(asked) + " bytes (" + gib(bytes) + ") of pinned host memory were refused: is there so much free memory, and does `ulimit -l` allow it?");
    driver_.check(result, "cuMemHostAlloc");
    std::memset(r.data, 0, asked);
    return r;
  }
  cu::Address at = 0;
  const cu::Result result = driver_.memory_allocate(&at, asked);
  if (result == cu::out_of_memory) {
    std::size_t free = 0, total = 0;
    driver_.check(driver_.memory_info(&free, &total), "cuMemGetInfo_v2");
    const std::size_t others = total > free + reserved ? total - free - reserved : 0;
    const std::string what = "cuda: " + std::to_string(asked) + " bytes (" + gib(bytes) + ") asked for on GPU " + std::to_string(ordinal_) + " with " + gib(static_cast<double>(reserved)) + " reserved already; " +
                             gib(static_cast<double>(free)) + " of " + gib(static_cast<double>(total)) + " are free";
    if (free >= asked) throw Error("OutOfMemory", what + ", and refused all the same: no such stretch is free in one piece, or somebody took it meanwhile; start again, or let the run need less");
    if (asked + reserved + others / 8 <= total)
      throw Error("MemoryHeld", what + ", " + gib(static_cast<double>(others)) + " are held by other processes and this one's context: `nvidia-smi` shows by whom; end them, or choose another GPU");
    throw Error("OutOfMemory", what + ": `lomo plan` says what a run needs and which setting saves how much");
  }
  driver_.check(result, "cuMemAlloc_v2");
  r.data = reinterpret_cast<void*>(at);
  driver_.check(driver_.memset8(at, 0, asked, queues_[0].stream), "cuMemsetD8Async");
  driver_.check(driver_.stream_synchronize(queues_[0].stream), "cuStreamSynchronize");
  return r;
}

void CudaDevice::release(const Reservation& r) {
  // Both wait for the work that is enqueued; a lost context refuses, and its memory is gone anyway.
  driver_.context_set(handle_);
  if (r.place == 1) {
    driver_.context_synchronize();
    driver_.host_free(r.data);
  } else {
    driver_.memory_free(address(r.data));
  }
}

std::size_t CudaDevice::workspace(const Kernel& kernel, const Call& call) { return kernel.workspace == nullptr ? 0 : kernel.workspace(call); }

void CudaDevice::begin(Transfers::Answer answer) {
  driver_.context_set(handle_);
  transfers_.start(std::move(answer), [this] { context_->communicators.check(); });
}

void CudaDevice::run(Command& c) {
  context_->communicators.check();
  context_->stream = queues_[c.queue].stream;
  queues_[c.queue].last = c.ticket;
  nvtx_.push(c.kernel->name);
  try {
    c.kernel->run(c.call);
  } catch (...) {
    nvtx_.pop();
    throw;
  }
  nvtx_.pop();
  if (!c.check) return;
  driver_.check(driver_.stream_synchronize(context_->stream), c.kernel->name);
  std::int32_t fault[8];
  transfers_.read_now(fault, context_->fault, sizeof fault, queues_[0].stream);
  refuse_nan(c.call);
}

void CudaDevice::move(Command& c) {
  Queue& q = queues_[c.queue];
  q.last = c.ticket;
  switch (c.kind) {
    case CommandKind::write: return transfers_.write(c.to, c.staging.data.get(), c.bytes, q.stream);
    case CommandKind::read: return transfers_.read(c.to, c.from, c.bytes, q.stream);
    default:
      if (c.bytes > 0) driver_.check(driver_.copy(address(c.to), address(c.from), c.bytes, q.stream), "cuMemcpyAsync");
      record(c.queue);  // somebody will wait for exactly this
  }
}

void CudaDevice::record(int queue) {
  Queue& q = queues_[queue];
  const auto at = static_cast<std::size_t>(q.recorded++ % marks);
  driver_.check(driver_.event_record(q.events[at], q.stream), "cuEventRecord");
  q.tickets[at] = q.last;
}

// The earliest recorded point that covers the ticket; where there is none, this one does.
cu::Event CudaDevice::covering(int queue, std::uint64_t until) {
  Queue& q = queues_[queue];
  const auto find = [&]() -> cu::Event {
    for (std::uint64_t i = q.recorded > marks ? q.recorded - marks : 0; i < q.recorded; ++i)
      if (q.tickets[i % marks] >= until) return q.events[i % marks];
    return nullptr;
  };
  if (const cu::Event known = find(); known != nullptr) return known;
  if (q.last < until) throw Error("BadEvent", "cuda: a queue waits for an event of a queue that never had it");
  record(queue);
  return find();
}

void CudaDevice::wait(Command& c) {
  if (c.queue != c.other) driver_.check(driver_.stream_wait(queues_[c.queue].stream, covering(c.other, c.until), 0), "cuStreamWaitEvent");
}

void CudaDevice::reach(Command& c) { transfers_.after(covering(c.other, c.until)); }

void CudaDevice::tune(Command& c) {
  for (const Queue& q : queues_) driver_.check(driver_.stream_synchronize(q.stream), "cuStreamSynchronize");
  context_->products.choices().tune(driver_, queues_[0].stream, c.to, c.bytes);
}

std::unique_ptr<CudaDevice::Watch> CudaDevice::watch(std::size_t capacity) {
  driver_.check(driver_.context_set(handle_), "cuCtxSetCurrent");
  return std::make_unique<Watch>(*this, capacity);
}

cu::Stream CudaDevice::timed(const Command& c) const {
  return c.kind == CommandKind::launch || c.kind == CommandKind::copy || c.kind == CommandKind::write || c.kind == CommandKind::read ? queues_[c.queue].stream : nullptr;
}

void CudaDevice::finish() {
  for (Queue& q : queues_) driver_.check(driver_.stream_synchronize(q.stream), "cuStreamSynchronize");
  context_->communicators.check();
}

void CudaDevice::refuse_nan(const Call& call) {
  for (std::int32_t i = call.ins; i < call.ins + call.inouts + call.outs; ++i) {
    const Operand& o = call.operands[i];
    if (o.dtype == DType::i32 || o.dtype == DType::u8) continue;
    std::vector<unsigned char> bytes(o.bytes());
    transfers_.read_now(bytes.data(), o.data, bytes.size(), queues_[0].stream);
    bool nan = false;
    for (std::int64_t e = 0; e < o.count() && !nan; ++e) {
      if (o.dtype == DType::f32) {
        float x;
        std::memcpy(&x, &bytes[static_cast<std::size_t>(4 * e)], 4);
        nan = std::isnan(x);
      } else {
        std::uint16_t x;
        std::memcpy(&x, &bytes[static_cast<std::size_t>(2 * e)], 2);
        nan = (x & 0x7fff) > (o.dtype == DType::bf16 ? 0x7f80 : 0x7c00);
      }
    }
    if (nan) throw Error("NotANumber", std::string(i < call.ins + call.inouts ? "inout " : "out ") + std::to_string(i < call.ins + call.inouts ? i - call.ins : i - call.ins - call.inouts) + " holds a NaN after the kernel ran");
  }
}

}  // namespace lomo
