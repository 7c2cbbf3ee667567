// A GPU as a device: four streams, pinned staging, events where queues wait for one another. Everything but reserve and release runs
// on the executor's thread.
#pragma once

#include <napi.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "addon/context.h"
#include "addon/nvtx.h"
#include "addon/transfers.h"
#include "addon/watch.h"
#include "lomo/command.h"

namespace lomo {

class CudaDevice {
 public:
  // options: { device: number, driver, cublasLt, nccl, nvtx: strings, '' where not given, folders: string[] }. Throws what Driver,
  // Functions, Products and Nvtx throw, BadOption.
  explicit CudaDevice(const Napi::Object& options);
  ~CudaDevice();

  // Writes go through the executor's staging even while it is idle: idle says that work was enqueued, not that it is done.
  static constexpr bool stages_always = true;

  const KernelSet& kernels() const;
  Context* context() const { return context_.get(); }
  std::int32_t threads() const { return 1; }
  std::uint64_t allocations() const { return transfers_.allocations() + context_->products.allocations(); }
  Napi::Value facts(Napi::Env env) const;

  Reservation reserve(std::int32_t place, double bytes, std::size_t reserved);
  void release(const Reservation& r);
  // Whether the host sees that memory.
  bool visible(const Reservation& r) const { return r.place == 1; }
  std::size_t workspace(const Kernel& kernel, const Call& call);
  // Becomes a rank of a communicator; returns its number. Throws what Nccl throws.
  int join(const Membership& m) { return context_->communicators.add(handle_, m); }
  // Any thread: sets the executor's thread free where it waits for other ranks.
  void interrupt() { context_->communicators.interrupt(); }

  // The algorithms of products: what was chosen so far, and choices made before. JavaScript's thread.
  Napi::Value algorithms(Napi::Env env) const;
  void adopt(const Napi::Array& choices);

  // The executor's thread.
  void begin(Transfers::Answer answer);
  void run(Command& c);
  void move(Command& c);   // copies, writes and reads
  void wait(Command& c);   // the command's queue waits for another's ticket
  void reach(Command& c);  // somebody else does, when it is kept
  void tune(Command& c);   // chooses the algorithms of the products that plans asked for
  void keep(Command* c) { transfers_.keep(c); }
  void finish();

  // After the executor's thread has ended: ends the one that answers.
  void quiesce() { transfers_.stop(); }

  // A stopwatch that this device's commands tell of their queue.
  class Watch : public lomo::Watch {
   public:
    Watch(CudaDevice& device, std::size_t capacity) : lomo::Watch(device.driver_, device.pairs_, capacity, device.queues_[0].stream), device_(device) {}
    void begin(const Command& c) { lomo::Watch::begin(device_.timed(c)); }
    void end(const Command& c) { lomo::Watch::end(c, device_.timed(c)); }

   private:
    const CudaDevice& device_;
  };
  std::unique_ptr<Watch> watch(std::size_t capacity);

 private:
  static constexpr int queues = 4, marks = 64;

  // Points of a queue that were recorded, in a ring; tickets ascend.
  struct Queue {
    cu::Stream stream = nullptr;
    std::array<cu::Event, marks> events{};
    std::array<std::uint64_t, marks> tickets{};
    std::uint64_t recorded = 0, last = 0;  // last: the latest command's ticket
  };

  void open();
  void shut();
  void record(int queue);
  cu::Event covering(int queue, std::uint64_t until);
  cu::Stream timed(const Command& c) const;
  void refuse_nan(const Call& call);

  Driver driver_;
  std::unique_ptr<Context> context_;
  cu::Device device_ = 0;
  cu::Context handle_ = nullptr;
  std::string name_, gpu_;
  int ordinal_ = 0, multiprocessors_ = 0;
  std::size_t memory_ = 0;
  Queue queues_[queues];
  Transfers transfers_;
  EventPairs pairs_;  // of stopwatches
  Nvtx nvtx_;
};

}  // namespace lomo
