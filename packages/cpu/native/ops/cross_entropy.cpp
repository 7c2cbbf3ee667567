// cross_entropy on whole rows of logits, and the three kernels that do it by tiles of the vocabulary. Gradients overwrite the logits.
// Also compiled for avx512_bf16, which rounds to bf16 in one instruction.
#include <cmath>

#include "gate.h"
#include "../simd/math.h"

namespace lomo::LOMO_ISA {
namespace {

struct Softmax { float max; double sum; };  // sum of exp(l - max)

// One read of n logits from memory: blocks that fit the first cache are read twice, for their maximum, then for their exponentials.
Softmax softmax_sum(const float* l, std::int64_t n) {
  constexpr std::int64_t block = 2048;
  Softmax r{-__builtin_inff(), 0.0};
  for (std::int64_t first = 0; first < n; first += block) {
    const std::int64_t last = smaller(n, first + block);
    f32x16 m0(r.max), m1(r.max);
    std::int64_t i = first;
    for (; i + 2 * lanes <= last; i += 2 * lanes) {
      m0 = max(load(l + i), m0);
      m1 = max(load(l + i + lanes), m1);
    }
    for (; i + lanes <= last; i += lanes) m0 = max(load(l + i), m0);
    float top = largest(max(m0, m1));
    for (; i < last; ++i) top = l[i] > top ? l[i] : top;
    if (top > r.max) {
      r.sum *= std::exp(static_cast<double>(r.max) - static_cast<double>(top));
      r.max = top;
    }
    const f32x16 shift(r.max == -__builtin_inff() ? 0.0f : r.max);  // what is -inf so far weighs nothing
    f32x16 s0(0.0f), s1(0.0f);
    for (i = first; i + 2 * lanes <= last; i += 2 * lanes) {
      s0 += exp(load(l + i) - shift);
      s1 += exp(load(l + i + lanes) - shift);
    }
    sweep(i, last, [&](std::int64_t j, std::int64_t k) LOMO_ALWAYS {
      s0 += select(lane_index() < static_cast<std::int32_t>(k), exp(load(l + j, k) - shift), f32x16(0.0f));
    });
    r.sum += static_cast<double>(sum(s0 + s1));
  }
  return r;
}

// A row as `store_exponentials` left it: element i holds exp(l - top of its block).
struct Blocks {
  static constexpr std::int64_t most = 128;
  std::int64_t length = 0;  // elements of a block
  float top[most];
  Softmax whole;
};

// Overwrites n logits by their exponentials relative to their block's maximum: each is computed once, read from memory once.
void store_exponentials(float* l, std::int64_t n, Blocks& blocks) {
  blocks.length = larger<std::int64_t>(2048, ceil_div(ceil_div(n, Blocks::most), lanes) * lanes);
  Softmax& r = blocks.whole;
  r = {-__builtin_inff(), 0.0};
  for (std::int64_t first = 0, b = 0; first < n; first += blocks.length, ++b) {
    const std::int64_t last = smaller(n, first + blocks.length);
    f32x16 m0(-__builtin_inff()), m1 = m0;
    std::int64_t i = first;
    for (; i + 2 * lanes <= last; i += 2 * lanes) {
      m0 = max(load(l + i), m0);
      m1 = max(load(l + i + lanes), m1);
    }
    float top = largest(max(m0, m1));
    for (; i < last; ++i) top = l[i] > top ? l[i] : top;
    blocks.top[b] = top;
    const f32x16 shift(top == -__builtin_inff() ? 0.0f : top);  // a block of -inf weighs nothing
    f32x16 s0(0.0f), s1(0.0f);
    for (i = first; i + 2 * lanes <= last; i += 2 * lanes) {
      const f32x16 e0 = exp(load(l + i) - shift), e1 = exp(load(l + i + lanes) - shift);
      store(l + i, e0);
      store(l + i + lanes, e1);
      s0 += e0;
      s1 += e1;
    }
    sweep(i, last, [&](std::int64_t j, std::int64_t k) LOMO_ALWAYS {
      const f32x16 x = exp(load(l + j, k) - shift);
      store(l + j, x, k);
      s0 += select(lane_index() < static_cast<std::int32_t>(k), x, f32x16(0.0f));
    });
    const double mass = static_cast<double>(sum(s0 + s1));
    if (top > r.max) {
      r.sum = r.sum * std::exp(static_cast<double>(r.max) - static_cast<double>(top)) + mass;
      r.max = top;
    } else if (mass != 0) {  // a block of -inf, beside others of it, has no distance to the maximum
      r.sum += mass * std::exp(static_cast<double>(top) - static_cast<double>(r.max));
    }
  }
}

// The stored exponentials times `factor`, relative to the row's maximum; and the same rounded into `copy`, unless that is null.
template <class T> void scale_exponentials(float* e, T* copy, std::int64_t n, const Blocks& blocks, double factor) {
  for (std::int64_t first = 0, b = 0; first < n; first += blocks.length, ++b) {
    const float f = static_cast<float>(std::exp(static_cast<double>(blocks.top[b]) - static_cast<double>(blocks.whole.max)) * factor);
    const std::int64_t last = smaller(n, first + blocks.length);
    if (copy == nullptr) {
      sweep(first, last, [=](std::int64_t i, std::int64_t k) LOMO_ALWAYS { store(e + i, load(e + i, k) * f, k); });
      continue;
    }
    sweep(first, last, [=](std::int64_t i, std::int64_t k) LOMO_ALWAYS {
      const f32x16 x = load(e + i, k) * f;
      store(e + i, x, k);
      store(copy + i, x, k);
    });
  }
}

// l = exp(l - shift) * factor, minus `scale` at the target where that is in [0, n).
void to_gradient(float* l, std::int64_t n, float shift, double factor, double scale, std::int64_t target) {
  const bool here = target >= 0 && target < n;
  const double p = here ? std::exp(static_cast<double>(l[target]) - static_cast<double>(shift)) * factor : 0.0;
  const float f = static_cast<float>(factor);
  sweep(0, n, [=](std::int64_t i, std::int64_t k) LOMO_ALWAYS { store(l + i, exp(load(l + i, k) - shift) * f, k); });
  if (here) l[target] = static_cast<float>(p - scale);
}

void check_targets(const char* op, const std::int32_t* targets, std::int64_t rows, std::int64_t vocabulary) {
  for (std::int64_t i = 0; i < rows; ++i)
    LOMO_REQUIRE(targets[i] < vocabulary, "BadId", "%s: target %d in row %lld is outside the vocabulary of %lld", op, targets[i], static_cast<long long>(i),
                 static_cast<long long>(vocabulary));
}

double gradient_scale(const float* scalars) { return static_cast<double>(scalars[at_inverse_tokens]) * static_cast<double>(scalars[at_loss_scale]); }

void cross_entropy(const Call& call) {
  const std::int64_t rows = call.in(0).count(), n = call.inout(0).last();
  same_size("cross_entropy", "logits", call.inout(0).count(), rows * n);
  same_size("cross_entropy", "loss", call.out(0).count(), rows);
  same_size("cross_entropy", "lse", call.out(1).count(), rows);
  const std::int32_t* targets = call.in(0).as<const std::int32_t>();
  check_targets("cross_entropy", targets, rows, n);
  const double scale = gradient_scale(call.in(1).as<const float>());
  float* logits = call.inout(0).as<float>();
  float* loss = call.out(0).as<float>();
  float* lse = call.out(1).as<float>();
  const std::int64_t grad = call.integer(0);
  const bool copied = grad == 2;
  LOMO_REQUIRE(call.outs == (copied ? 3 : 2), "BadShape", "cross_entropy: grad %lld goes with %d outputs, not %d", static_cast<long long>(grad), copied ? 3 : 2, call.outs);
  if (copied) same_size("cross_entropy", "copy", call.out(2).count(), rows * n);
  with_real(copied ? call.out(2).dtype : DType::f32, [&](auto* t) {
    using T = pointee<decltype(t)>;
    T* copies = copied ? call.out(2).as<T>() : nullptr;
    split(call, rows, 1, 8 * n, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        float* l = logits + r * n;
        T* copy = copied ? copies + r * n : nullptr;
        const bool trained = targets[r] >= 0;
        const double wanted = trained ? static_cast<double>(l[targets[r]]) : 0.0;
        Blocks blocks;
        if (grad != 0 && trained) store_exponentials(l, n, blocks);
        else blocks.whole = softmax_sum(l, n);
        const Softmax& s = blocks.whole;
        const double log_sum = static_cast<double>(s.max) + std::log(s.sum);
        lse[r] = static_cast<float>(log_sum);
        loss[r] = trained ? static_cast<float>(log_sum - wanted) : 0.0f;
        if (grad == 0) continue;
        if (!trained) {
          std::memset(l, 0, static_cast<std::size_t>(n) * sizeof(float));
          if (copied) std::memset(static_cast<void*>(copy), 0, static_cast<std::size_t>(n) * sizeof(T));
          continue;
        }
        scale_exponentials(l, copy, n, blocks, scale / s.sum);
        l[targets[r]] = static_cast<float>(std::exp(wanted - static_cast<double>(s.max)) * (scale / s.sum) - scale);
        if (copied) put(copy + targets[r], l[targets[r]]);
      }
    });
  });
}

void cross_entropy_tile(const Call& call) {
  const std::int64_t rows = call.in(0).count(), n = call.in(1).last(), column = call.integer(0);
  same_size("cross_entropy_tile", "logits", call.in(1).count(), rows * n);
  same_size("cross_entropy_tile", "stats", call.inout(0).count(), rows * 3);
  const std::int32_t* targets = call.in(0).as<const std::int32_t>();
  const float* logits = call.in(1).as<const float>();
  float* stats = call.inout(0).as<float>();
  split(call, rows, 1, 8 * n, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* to = stats + 3 * r;
      const Softmax s = softmax_sum(logits + r * n, n);
      if (column == 0) {
        to[0] = s.max;
        to[1] = static_cast<float>(s.sum);
        to[2] = 0.0f;
      } else {
        const float top = larger(to[0], s.max);
        to[1] = static_cast<float>(to[1] * std::exp(static_cast<double>(to[0]) - top) + s.sum * std::exp(static_cast<double>(s.max) - top));
        to[0] = top;
      }
      const std::int64_t target = targets[r] - column;
      if (targets[r] >= 0 && target >= 0 && target < n) to[2] = logits[r * n + target];
    }
  });
}

void cross_entropy_finish(const Call& call) {
  const std::int64_t rows = call.in(1).count();
  same_size("cross_entropy_finish", "stats", call.in(0).count(), rows * 3);
  const float* stats = call.in(0).as<const float>();
  const std::int32_t* targets = call.in(1).as<const std::int32_t>();
  for (std::int64_t r = 0; r < rows; ++r) {
    const double log_sum = static_cast<double>(stats[3 * r]) + std::log(static_cast<double>(stats[3 * r + 1]));
    call.out(1).as<float>()[r] = static_cast<float>(log_sum);
    call.out(0).as<float>()[r] = targets[r] < 0 ? 0.0f : static_cast<float>(log_sum - static_cast<double>(stats[3 * r + 2]));
  }
}

void cross_entropy_grad(const Call& call) {
  const std::int64_t rows = call.in(0).count(), n = call.inout(0).last(), column = call.integer(0);
  same_size("cross_entropy_grad", "logits", call.inout(0).count(), rows * n);
  same_size("cross_entropy_grad", "lse", call.in(1).count(), rows);
  const std::int32_t* targets = call.in(0).as<const std::int32_t>();
  const float* lse = call.in(1).as<const float>();
  const double scale = gradient_scale(call.in(2).as<const float>());
  float* logits = call.inout(0).as<float>();
  split(call, rows, 1, 8 * n, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      if (targets[r] < 0) std::memset(logits + r * n, 0, static_cast<std::size_t>(n) * 4);
      else to_gradient(logits + r * n, n, lse[r], scale, scale, targets[r] - column);
    }
  });
}

}  // namespace

extern const Kernel kernels_cross_entropy[];
const Kernel kernels_cross_entropy[] = {
    {"cross_entropy", "grad", accepts<"if|f|ff">, cross_entropy, nullptr},
    {"cross_entropy", "grad", accepts<"if|f|ffr">, cross_entropy, nullptr},
    {"cross_entropy_tile", "column", accepts<"if|f|">, cross_entropy_tile, nullptr},
    {"cross_entropy_finish", "", accepts<"fi||ff">, cross_entropy_finish, nullptr},
    {"cross_entropy_grad", "column", accepts<"iff|f|">, cross_entropy_grad, nullptr},
    {},
};

}  // namespace lomo::LOMO_ISA
