// matmul and matmul_add with a weight (and a bias) kept as f16 beside f32 activations: the weight is made f32 in the workspace and the f32
// kernel runs. A large one passes through in panels of c's columns, whose bits are those of the whole product.
#include "onednn/products.h"
#include "onednn/widen.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "lomo/error.h"

namespace lomo::LOMO_ISA {

extern const Kernel kernels_matmul[];

namespace {

constexpr std::int64_t most = 16 << 20;  // bytes of f32 weights, and of the columns of c they give, at a time
constexpr std::int64_t unit = 64;        // columns of a panel are a multiple of this: whole blocks of any product

bool accepts(const Signature& s, bool add) {
  const bool c = add ? s.n_inouts == 1 && s.n_outs == 0 && s.inouts[0] == DType::f32 : s.n_outs == 1 && s.n_inouts == 0 && s.outs[0] == DType::f32;
  const bool bias = !add && s.n_ins == 3 && s.ins[2] == DType::f16;
  return c && (s.n_ins == 2 || bias) && s.ins[0] == DType::f32 && s.ins[1] == DType::f16;
}
bool accepts_matmul(const Signature& s) { return accepts(s, false); }
bool accepts_add(const Signature& s) { return accepts(s, true); }

const Kernel& f32_kernel(bool add) {
  const std::string_view name = add ? "matmul_add" : "matmul";
  const Kernel* k = kernels_matmul;
  while (name != k->name) ++k;
  return *k;
}

std::size_t bytes(std::int64_t count) { return (static_cast<std::size_t>(count) * sizeof(float) + 63) / 64 * 64; }

void copy(const float* from, std::int64_t from_stride, float* to, std::int64_t to_stride, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; ++r) std::memcpy(to + r * to_stride, from + r * from_stride, static_cast<std::size_t>(columns) * sizeof(float));
}

// A launch as panels of `width` columns of c; in the workspace a panel of the weight, of the bias and of c, then what the product needs.
class Panels {
 public:
  Panels(const Call& outer, bool add) : call_(outer), kernel_(f32_kernel(add)), c_(add ? outer.inout(0) : outer.out(0)), add_(add), bias_(outer.ins == 3), tb_(outer.flag(1)) {
    const Operand& b = call_.in(1);
    n_ = tb_ ? b.dim[0] : b.dim[1];
    k_ = tb_ ? b.dim[1] : b.dim[0];
    m_ = c_.dim[0];
    const bool fits = b.rank == 2 && c_.rank == 2 && c_.dim[1] == n_ && (!bias_ || call_.in(2).count() == n_);
    whole_ = !fits || n_ * k_ * 4 <= most;  // what does not fit is left to the f32 kernel to refuse
    width_ = whole_ ? std::max<std::int64_t>(n_, 1) : std::max(unit, most / 4 / (k_ + m_) / unit * unit);
    at_bias_ = bytes(width_ * k_);
    at_c_ = at_bias_ + (bias_ ? bytes(width_) : 0);
    at_inner_ = at_c_ + (whole_ ? 0 : bytes(m_ * width_));
  }

  std::size_t workspace() const {
    const auto need = [&](std::int64_t count) {
      Inner inner;
      describe(inner, count);
      return kernel_.workspace(inner.call);
    };
    const std::int64_t rest = n_ % width_;
    return at_inner_ + std::max(need(std::min(width_, n_)), rest > 0 && !whole_ ? need(rest) : 0);
  }

  void run() const {
    std::int64_t from = 0;
    do {
      const std::int64_t count = std::min(width_, n_ - from);
      const auto* weight = call_.in(1).as<const std::uint16_t>() + from * (tb_ ? k_ : 1);
      onednn::widen(weight, tb_ ? count : k_, tb_ ? k_ : count, tb_ ? k_ : n_, place(0));
      if (bias_) onednn::widen(call_.in(2).as<const std::uint16_t>() + from, 1, count, count, place(at_bias_));
      auto* columns = c_.as<float>() + from;
      if (add_ && !whole_) copy(columns, n_, place(at_c_), count, m_, count);
      Inner inner;
      describe(inner, count);
      kernel_.run(inner.call);
      if (!whole_) copy(place(at_c_), count, columns, n_, m_, count);
      from += width_;
    } while (from < n_);
  }

 private:
  struct Inner {
    Operand operands[4];
    Call call;
  };

  // The f32 launch of a panel of `count` columns.
  void describe(Inner& inner, std::int64_t count) const {
    Operand* next = inner.operands;
    *next++ = call_.in(0);
    *next = call_.in(1);
    next->dtype = DType::f32;
    next->data = place(0);
    if (!whole_) next->dim[tb_ ? 0 : 1] = count;
    ++next;
    if (bias_) {
      *next = call_.in(2);
      next->dtype = DType::f32;
      next->data = place(at_bias_);
      if (!whole_) next->dim[next->rank - 1] = count;
      ++next;
    }
    *next = c_;
    if (!whole_) {
      next->data = place(at_c_);
      next->dim[1] = count;
    }
    inner.call = call_;
    inner.call.operands = inner.operands;
    inner.call.workspace = place(at_inner_);
  }

  // Null while the workspace is only being sized.
  float* place(std::size_t at) const { return call_.workspace == nullptr ? nullptr : reinterpret_cast<float*>(static_cast<char*>(call_.workspace) + at); }

  const Call& call_;
  const Kernel& kernel_;
  const Operand& c_;
  bool add_, bias_, tb_, whole_ = true;
  std::int64_t n_ = 0, k_ = 0, m_ = 0, width_ = 1;
  std::size_t at_bias_ = 0, at_c_ = 0, at_inner_ = 0;
};

void matmul(const Call& call) { Panels(call, false).run(); }
void matmul_add(const Call& call) { Panels(call, true).run(); }
std::size_t matmul_workspace(const Call& call) { return Panels(call, false).workspace(); }
std::size_t matmul_add_workspace(const Call& call) { return Panels(call, true).workspace(); }

}  // namespace

extern const Kernel kernels_matmul_f16[] = {
    {"matmul", "ta tb alpha", accepts_matmul, matmul, matmul_workspace},
    {"matmul_add", "ta tb alpha", accepts_add, matmul_add, matmul_add_workspace},
    {},
};

}  // namespace lomo::LOMO_ISA
