// rms_norm, its gradient and embedding with a weight kept as f16 beside f32 activations: the norm's weight is made f32 in the workspace and
// the f32 kernel runs; of the embedding only the rows that are asked for are widened.
#include <string_view>

#include "dispatch.h"
#include "../simd/parallel.h"

namespace lomo::LOMO_ISA {

extern const Kernel kernels_rms_norm[];

namespace {

// A launch of the f32 kernel `name` whose operand 1, the weight, lies widened at the start of the workspace.
struct Widened {
  Operand operands[6];
  Call call;
  const Kernel* kernel = kernels_rms_norm;

  Widened(const Call& outer, std::string_view name) : call(outer) {
    for (int i = 0; i < outer.ins + outer.inouts + outer.outs; ++i) operands[i] = outer.operands[i];
    operands[1].dtype = DType::f32;
    operands[1].data = outer.workspace;
    call.operands = operands;
    if (outer.workspace != nullptr) call.workspace = static_cast<char*>(outer.workspace) + weight();
    while (name != kernel->name) ++kernel;
  }
  std::size_t weight() const { return (operands[1].bytes() + 63) / 64 * 64; }
};

void run(const Call& call, std::string_view name) {
  const Widened f32(call, name);
  const f16* w = call.in(1).as<const f16>();
  float* to = f32.operands[1].as<float>();
  sweep(0, call.in(1).count(), [=](std::int64_t i, std::int64_t n) LOMO_ALWAYS { store(to + i, load(w + i, n), n); });
  f32.kernel->run(f32.call);
}

std::size_t workspace(const Call& call, std::string_view name) {
  const Widened f32(call, name);
  return f32.weight() + (f32.kernel->workspace == nullptr ? 0 : f32.kernel->workspace(f32.call));
}

void rms_norm(const Call& call) { run(call, "rms_norm"); }
void rms_norm_backward(const Call& call) { run(call, "rms_norm_backward"); }
std::size_t rms_norm_workspace(const Call& call) { return workspace(call, "rms_norm"); }
std::size_t rms_norm_backward_workspace(const Call& call) { return workspace(call, "rms_norm_backward"); }

void embedding(const Call& call) {
  const Operand &ids = call.in(0), &w = call.in(1);
  const std::int64_t tokens = ids.count(), h = w.last(), vocabulary = w.rows();
  same_size("embedding", "y", call.out(0).count(), tokens * h);
  const std::int32_t* id = ids.as<const std::int32_t>();
  for (std::int64_t t = 0; t < tokens; ++t)
    LOMO_REQUIRE(id[t] >= 0 && id[t] < vocabulary, "BadId", "embedding: id %d at token %lld is outside [0, %lld); does the tokenizer belong to this model?", id[t],
                 static_cast<long long>(t), static_cast<long long>(vocabulary));
  const f16* table = w.as<const f16>();
  float* y = call.out(0).as<float>();
  split(call, tokens, 1, 6 * h, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const f16* from = table + id[t] * h;
      float* to = y + t * h;
      sweep(0, h, [=](std::int64_t j, std::int64_t n) LOMO_ALWAYS { store(to + j, load(from + j, n), n); });
    }
  });
}

// The weight is operand 1 everywhere; the other letters are those of `accepts`.
template <pattern others> bool with_f16(const Signature& s) { return s.n_ins > 1 && s.ins[1] == DType::f16 && accepts<others>(s); }

}  // namespace

extern const Kernel kernels_vector_f16[];
const Kernel kernels_vector_f16[] = {
    {"rms_norm", "eps", with_f16<"fs||ff">, rms_norm, rms_norm_workspace},
    {"rms_norm_backward", "start", with_f16<"fsff|f|f">, rms_norm_backward, rms_norm_backward_workspace},
    {"embedding", "", with_f16<"is||f">, embedding, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
