// attention and attention_backward: blockwise softmax attention over packed segments; see native/attention.
// Also compiled for avx512_bf16, which multiplies pairs of bf16.
#include "dispatch.h"
#include "../attention/backward.h"
#include "../attention/forward.h"

namespace lomo::LOMO_ISA {

extern const Kernel kernels_attention[];
const Kernel kernels_attention[] = {
    {"attention", "scale causal window max_q max_k", accepts<"rrrii||rf">, attention, attention_workspace},
    {"attention_backward", "scale causal window max_q max_k", accepts<"rrrrfrii||rrr">, attention_backward, attention_backward_workspace},
    {},
};

}  // namespace lomo::LOMO_ISA
