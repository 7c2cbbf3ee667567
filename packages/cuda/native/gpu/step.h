// The step tensors (`scalars` f32 [8], `counters` i32 [8]) and the gate, as kernels see them; places as in docs/kernels.md.
#pragma once

#include "gpu/reduce.h"
#include "gpu/storage.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

constexpr int at_lr = 0, at_inverse_tokens = 1, at_clip = 2, at_loss_scale = 3;
constexpr int at_step = 0, at_seed_low = 1, at_seed_high = 2, at_gate = 3, at_closed_by = 4;

__device__ __forceinline__ bool gate_open(const int* counters) { return counters[at_gate] == 0; }
// Any thread, once for all: whoever finds the gate open says who closed it.
__device__ __forceinline__ void close_gate(int* counters, int index) {
  if (atomicCAS(&counters[at_gate], 0, 1) == 0) counters[at_closed_by] = index;
}
__device__ __forceinline__ bool finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

}  // namespace lomo::gpu
#endif
