// What launches need beyond their operands: the driver, the stream, kernels by name, matrix products, communicators, the cell for refused data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cublas/products.h"
#include "driver/driver.h"
#include "lomo/kernel.h"
#include "nccl/communicator.h"

namespace lomo {

// The kernels of all modules, looked up once each.
class Functions {
 public:
  explicit Functions(const Driver& driver) : driver_(driver) {}
  ~Functions();
  // Loads the addon's device code into the current context. Throws MissingDeviceCode or WrongArchitecture, naming `gpu`.
  void load(const std::string& gpu);
  // The kernel, allowed that many dynamic bytes of shared memory. Throws MissingKernel.
  cu::Function find(std::string_view name, unsigned shared);

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  const Driver& driver_;
  std::vector<cu::Module> modules_;
  struct Found {
    cu::Function function = nullptr;
    unsigned shared = 48 * 1024;  // dynamic bytes it may take by now
  };
  std::unordered_map<std::string, Found, Hash, std::equal_to<>> found_;
};

struct Context {
  const Driver& driver;
  cu::Stream stream = nullptr;  // of the command that runs
  Functions functions;
  Products products;
  Communicators communicators;
  std::int32_t* fault = nullptr;  // device, i32 [8]
  std::uint64_t launches = 0;
  int architecture = 0;  // 90 is sm_90

  // `cublas` and `nccl` are paths, or empty.
  Context(const Driver& d, const std::string& cublas, const std::string& nccl, const std::vector<std::string>& folders)
      : driver(d), functions(d), products(cublas, folders), communicators(d, nccl, folders) {}
};

// What fault[0] may hold; the numbers that follow are the kernel's.
enum Fault : std::int32_t { no_fault = 0, bad_id = 1, bad_target = 2, cache_full = 3, bad_segments = 4 };

}  // namespace lomo
