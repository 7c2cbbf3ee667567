// A GPU as a device: four streams, pinned staging, events where queues wait for one another. Everything but reserve and release runs
// on the executor's thread.
#pragma once

#include <napi.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "addon/context.h"
#include "lomo/command.h"

namespace lomo {

class CudaDevice {
 public:
  // options: { device: number, driver: string or '', cublasLt: string or '', nccl: string or '', folders: string[] }. Throws what Driver, Functions and
  // Products throw, BadOption.
  explicit CudaDevice(const Napi::Object& options);
  ~CudaDevice();

  // Writes go through the executor's staging even while it is idle: idle says that work was enqueued, not that it is done.
  static constexpr bool stages_always = true;

  const KernelSet& kernels() const;
  Context* context() const { return context_.get(); }
  std::int32_t threads() const { return 1; }
  std::uint64_t allocations() const { return allocations_; }
  Napi::Value facts(Napi::Env env) const;

  Reservation reserve(std::int32_t place, double bytes, std::size_t reserved);
  void release(const Reservation& r);
  std::size_t workspace(const Kernel& kernel, const Call& call);
  // Becomes a rank of a communicator; returns its number. Throws what Nccl throws.
  int join(const Membership& m) { return context_->communicators.add(handle_, m); }
  // Any thread: sets the executor's thread free where it waits for other ranks.
  void interrupt() { context_->communicators.interrupt(); }

  // The executor's thread.
  void begin();
  void run(Command& c);
  void move(Command& c);  // copies, writes and reads
  void wait(Command& c);  // the command's queue waits for another's ticket
  void finish();

 private:
  static constexpr int queues = 4, slots = 6, write_slots = 4, marks = 64;
  static constexpr std::size_t slot_bytes = std::size_t{4} << 20;

  // Pinned memory that bytes pass through; `done` says when the device has taken them or left them.
  struct Slot {
    char* data = nullptr;
    cu::Event done = nullptr;
    bool recorded = false;
  };
  // Points of a queue that were recorded, in a ring; tickets ascend.
  struct Queue {
    cu::Stream stream = nullptr;
    std::array<cu::Event, marks> events{};
    std::array<std::uint64_t, marks> tickets{};
    std::uint64_t recorded = 0, last = 0;  // last: the latest command's ticket
  };

  void open();
  void shut();
  void write(void* to, const std::byte* from, std::size_t bytes);
  void read(void* to, const void* from, std::size_t bytes);
  void record(int queue);
  void refuse_fault(const std::int32_t* fault) const;
  void refuse_nan(const Call& call);
  char* place_for(std::size_t bytes);
  void await(Slot& s);

  Driver driver_;
  std::unique_ptr<Context> context_;
  cu::Device device_ = 0;
  cu::Context handle_ = nullptr;
  std::string name_, gpu_;
  int ordinal_ = 0, multiprocessors_ = 0;
  std::size_t memory_ = 0;
  Queue queues_[queues];
  Slot slots_[slots];  // the first four for writes, one after the other; two for reads
  int write_slot_ = 0;
  std::size_t write_fill_ = 0;
  std::int32_t* fault_copy_ = nullptr;  // pinned
  std::atomic<std::uint64_t> waits_{0};  // times the executor's thread waited for the GPU
  std::uint64_t allocations_ = 0;
};

}  // namespace lomo
