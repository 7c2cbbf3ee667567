// GB/s of the kernels that must run at memory speed: one thread by its own CPU time (a busy machine does not count), two threads by the clock.
#include <time.h>

#include "harness.h"

namespace test {
void speed();
namespace {

// Best of several runs without copies, in GB/s of `bytes`.
double rate(const Isa& isa, const Launch& l, double bytes, int threads) {
  const Kernel* k = find(isa, l);
  std::vector<Operand> operands;
  for (const Tensors* list : {&l.ins, &l.inouts, &l.outs})
    for (auto& t : *list) operands.push_back(t.operand());
  Call call;
  call.operands = operands.data();
  call.ins = static_cast<std::int32_t>(l.ins.size()); call.inouts = static_cast<std::int32_t>(l.inouts.size()); call.outs = static_cast<std::int32_t>(l.outs.size());
  call.attributes = l.attributes.data();
  call.threads = threads;
  double best = 1e9;
  const auto now = [&] {
    timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  };
  for (int i = 0; i < 9; ++i) {
    const double start = now();
    k->run(call);
    best = std::min(best, now() - start);
  }
  return bytes / best * 1e-9;
}

Tensor zeros(DType t, std::vector<std::int64_t> shape) {
  Tensor x(t, std::move(shape));
  std::memset(x.data.get(), 0, x.bytes());
  return x;
}

}  // namespace

void speed() {
  const std::int64_t rows = 2048, h = 4096, v = 32000, c = 256;
  const Tensor scalars = numbers(DType::f32, {0.01, 1, 1, 1, 0, 0, 0, 0}), counters = numbers(DType::i32, {1, 2, 3, 0, 0, 0, 0, 0});
  const double n = static_cast<double>(rows * h);
  for (const DType t : {DType::f32, DType::bf16}) {
    const double s = static_cast<double>(lomo::size_of(t));
    const Tensor x = zeros(t, {rows, h}), y = zeros(t, {rows, h}), z = zeros(t, {rows, h}), y2 = zeros(t, {rows, h}), z2 = zeros(t, {rows, h}), w = zeros(t, {h});
    const Tensor rstd = zeros(DType::f32, {rows}), sums = zeros(DType::f32, {2, h}), g = zeros(DType::f32, {rows, h}), m = zeros(DType::f32, {rows, h}), second = zeros(DType::f32, {rows, h});
    const Tensor heads = zeros(t, {rows, 32, 128}), turned = zeros(t, {rows, 32, 128}), positions = integers({rows}, 0, 2047), frequency = normal(DType::f32, {64});
    const std::vector<std::pair<Launch, double>> list{
        {{"add", {x, y}, {}, {z}, {}}, 3 * s * n},
        {{"rms_norm", {x, w}, {}, {y, rstd}, {1e-5}}, 2 * s * n},
        {{"rms_norm_backward", {x, w, rstd, y}, {sums}, {z}, {0}}, 3 * s * n},
        {{"silu_mul", {x, y}, {}, {z}, {}}, 3 * s * n},
        {{"silu_mul_backward", {x, y, z}, {}, {y2, z2}, {}}, 5 * s * n},
        {{"rope", {heads, positions, frequency}, {}, {turned}, {1, 0}}, 2 * s * n},
        {{"token_sum", {x}, {sums}, {}, {0}}, s * n},
        {{"lomo_update", {g, scalars}, {x, counters}, {}, {0, 0, 0, 0, 0, 0, 0}}, (4 + 2 * s) * n},
        {{"lomo_update", {g, scalars}, {x, counters}, {}, {0, 0, 0, 0, 0, 1, 1}}, (4 + 2 * s) * n},
        {{"adamw_update", {g, scalars}, {x, m, second, counters}, {}, {0, 0, 0, 0, 0, 1, 0, 0.9, 0.95, 1e-8}}, (20 + 2 * s) * n}};
    for (const auto& [launch, bytes] : list)
      for (const Isa& isa : isas())
        std::printf("%-18s %s %-8s %s %6.1f GB/s, %6.1f on 2 threads\n", launch.name.c_str(), t == DType::f32 ? "f32 " : "bf16", isa.name,
                    launch.attributes.size() > 6 && launch.attributes[5] == 1 ? "stochastic" : "          ", rate(isa, launch, bytes, 1), rate(isa, launch, bytes, 2));
  }
  const Tensor logits = normal(DType::f32, {c, v}), targets = integers({c}, 0, static_cast<int>(v) - 1), row = zeros(DType::f32, {c});
  const double bytes = static_cast<double>(c * v) * 8;
  const Tensor wide = normal(DType::f32, {64, 128000}), few = zeros(DType::f32, {64}), far = integers({64}, 0, 127999);
  for (const Isa& isa : isas()) {
    std::printf("cross_entropy 32k  f32  %-8s %6.1f GB/s, %6.1f on 2 threads\n", isa.name, rate(isa, {"cross_entropy", {targets, scalars}, {logits}, {row, row}, {1}}, bytes, 1), rate(isa, {"cross_entropy", {targets, scalars}, {logits}, {row, row}, {1}}, bytes, 2));
    std::printf("cross_entropy 128k f32  %-8s %6.1f GB/s, %6.1f on 2 threads\n", isa.name, rate(isa, {"cross_entropy", {far, scalars}, {wide}, {few, few}, {1}}, 64 * 128000 * 8.0, 1), rate(isa, {"cross_entropy", {far, scalars}, {wide}, {few, few}, {1}}, 64 * 128000 * 8.0, 2));
  }
}

}  // namespace test
