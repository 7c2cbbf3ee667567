// gate_loss and gate_check: a non-finite loss or gradient closes the gate, and nothing is written from then on.
#include "gpu/step.h"

namespace lomo::gate {

struct GateArgs {
  const float* x;
  int* counters;
  std::int64_t n;
  int index;
  bool wide;
};

#if defined(LOMO_DEVICE)
using namespace gpu;

__device__ __forceinline__ void loss(const GateArgs& a) {
  for (i64 i = sweep_start(); i < a.n; i += sweep_stride())
    if (!finite(a.x[i] + a.x[a.n + i])) close_gate(a.counters, a.index);
}
__device__ __forceinline__ void check(const GateArgs& a) {
  if (!gate_open(a.counters)) return;
  bool bad = false;
  sweep(
      a.n, a.wide,
      [&](i64 i) {
        float v[8];
        load8(v, a.x + i);
#pragma unroll
        for (int k = 0; k < 8; ++k) bad = bad || !finite(v[k]);
      },
      [&](i64 i) { bad = bad || !finite(a.x[i]); });
  if (bad) close_gate(a.counters, a.index);
}
LOMO_KERNEL(gate_loss_f32, 256, GateArgs, loss)  // 32 registers, 0 bytes
LOMO_KERNEL(gate_check_f32, 256, GateArgs, check)  // 40 registers, 0 bytes
#endif

}  // namespace lomo::gate

#if !defined(LOMO_DEVICE)
#include "addon/launch.h"
#include "addon/step.h"

namespace lomo {
namespace {

void gate_loss(const Call& call) {
  const std::int64_t n = call.in(0).count() / 2;
  const gate::GateArgs args{call.in(0).as<const float>(), call.inout(0).as<int>(), n, static_cast<int>(call.integer(0)), false};
  start(call, "gate_loss_f32", sweep_grid(n, 1), &args);
}
void gate_check(const Call& call) { check_gate(call, call.in(0), call.inout(0), call.integer(0)); }

}  // namespace

void check_gate(const Call& call, const Operand& g, const Operand& counters, std::int64_t index) {
  const gate::GateArgs args{g.as<const float>(), counters.as<int>(), g.count(), static_cast<int>(index), wide({g.data})};
  start(call, "gate_check_f32", sweep_grid(g.count()), &args);
}

extern const Kernel kernels_gate[] = {
    {"gate_loss", "index", accepts<"f|i|">, gate_loss, nullptr},
    {"gate_check", "index", accepts<"f|i|">, gate_check, nullptr},
    {},
};

}  // namespace lomo
#endif
