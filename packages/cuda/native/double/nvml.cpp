// Test only: a double of NVML: the double's own memory, and one process that holds what LOMO_DOUBLE_HELD says (LOMO_DOUBLE_HOLDER: its pid).
#include <cstdio>
#include <cstring>

#include "double/world.h"
#include "nvml/api.h"

using namespace lomo;
using namespace lomo::ml;

#define EXPORT extern "C" __attribute__((visibility("default"))) Result

EXPORT nvmlInit_v2() { return twin::setting("LOMO_DOUBLE_NO_NVML", 0) == 0 ? success : 9; }
EXPORT nvmlShutdown() { return success; }
EXPORT nvmlSystemGetDriverVersion(char* text, unsigned n) {
  std::snprintf(text, n, "580.0 (double)");
  return success;
}
EXPORT nvmlDeviceGetHandleByPciBusId_v2(const char* bus, Device* d) {
  if (std::strncmp(bus, "0000:", 5) != 0) return 2;
  static char body;
  *d = reinterpret_cast<Device>(&body);
  return success;
}
EXPORT nvmlDeviceGetMemoryInfo(Device, Memory* m) {
  const std::lock_guard lock(twin::world().mutex);
  m->total = twin::capacity();
  m->used = twin::world().used + twin::world().startup + twin::held();
  m->free = m->used > m->total ? 0 : m->total - m->used;
  return success;
}
EXPORT nvmlDeviceGetComputeRunningProcesses_v3(Device, unsigned* count, Process* list) {
  const unsigned room = *count, found = twin::held() > 0 ? 1 : 0;
  *count = found;
  if (room < found) return insufficient_size;
  if (found == 1) list[0] = {static_cast<unsigned>(twin::setting("LOMO_DOUBLE_HOLDER", 4294967)), twin::held(), 0, 0};
  return success;
}
EXPORT nvmlDeviceGetGraphicsRunningProcesses_v3(Device, unsigned* count, Process*) {
  *count = 0;
  return success;
}
EXPORT nvmlSystemGetProcessName(unsigned, char*, unsigned) { return 6; }  // as from inside a container: /proc tells, or nobody
