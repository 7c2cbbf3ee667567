// The CPU as a device: kernels and copies run on the executor's thread and its OpenMP team.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "lomo/command.h"

namespace lomo {

class CpuDevice {
 public:
  // options: { threads: number, isa: string or '', oneDnn: string or '' }. Throws UnsupportedIsa or MissingLibrary.
  explicit CpuDevice(const Napi::Object& options);
  ~CpuDevice();

  const KernelSet& kernels() const { return set_; }
  Context* context() const { return context_.get(); }
  std::int32_t threads() const { return threads_; }
  std::uint64_t allocations() const;
  Napi::Value facts(Napi::Env env) const;

  Reservation reserve(std::int32_t place, double bytes, std::size_t reserved);
  void release(const Reservation& r);
  bool visible(const Reservation&) const { return true; }  // to the host, by its own addresses
  std::size_t workspace(const Kernel& kernel, const Call& call);

  // The executor's thread.
  void begin();
  void run(Command& c);
  void copy(void* to, const void* from, std::size_t bytes, CommandKind kind);
  void finish() {}

 private:
  const KernelSet& set_;
  std::int32_t threads_;
  std::unique_ptr<Context> context_;
};

}  // namespace lomo
