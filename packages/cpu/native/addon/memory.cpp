// mmap with a check against what the machine or the control group allows: the kernel would rather kill us later than refuse now.
#include "addon/memory.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "lomo/error.h"

namespace lomo {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

double limit_in(const char* path) {
  std::ifstream file(path);
  double bytes = 0;
  return file >> bytes && bytes > 0 ? bytes : 1e300;  // "max" does not parse: no limit
}

double host_limit() {
  struct sysinfo info {};
  const double ram = sysinfo(&info) == 0 ? static_cast<double>(info.totalram + info.totalswap) * info.mem_unit : 1e300;
  return std::min({ram, limit_in("/sys/fs/cgroup/memory.max"), limit_in("/sys/fs/cgroup/memory/memory.limit_in_bytes")});
}

}  // namespace

Reservation reserve_host(double bytes, std::size_t reserved) {
  if (!(bytes > 0 && bytes <= 9e15)) throw Error("BadSize", "a memory of " + std::to_string(bytes) + " bytes was asked for; sizes are positive");
  const double limit = host_limit();
  const auto refuse = [&](const std::string& why) {
    constexpr double gib = 1024.0 * 1024 * 1024;
    char text[256];
    std::snprintf(text, sizeof text, "cpu: %.0f bytes (%.2f GiB) asked for with %.2f GiB reserved already; ", bytes, bytes / gib, static_cast<double>(reserved) / gib);
    return Error("OutOfMemory", text + why);
  };
  if (bytes + static_cast<double>(reserved) > limit)
    throw refuse("this machine or its control group allows " + std::to_string(static_cast<long long>(limit / (1024 * 1024))) + " MiB");
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const auto asked = static_cast<std::size_t>(bytes);
  const std::size_t unit = asked >= huge_page ? huge_page : page;
  const std::size_t mapped = (asked + unit - 1) / unit * unit;
  const std::size_t slack = unit == huge_page ? huge_page - page : 0;  // room to move the start to a huge page's border
  void* raw = mmap(nullptr, mapped + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw refuse(std::string("mmap: ") + std::strerror(errno));
  char* start = static_cast<char*>(raw);
  char* data = reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(start) + unit - 1) / unit * unit);
  const auto before = static_cast<std::size_t>(data - start);
  if (before > 0) munmap(start, before);
  if (slack > before) munmap(data + mapped, slack - before);
  if (unit == huge_page) madvise(data, mapped, MADV_HUGEPAGE);  // advice: refusal is harmless
  return {data, asked, mapped, 0};
}

void release_host(const Reservation& r) { munmap(r.data, r.mapped); }

}  // namespace lomo
