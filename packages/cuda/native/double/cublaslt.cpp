// Test only: a double of cuBLASLt: products by three loops, enqueued on the double's streams; what the library refuses is refused. It has
// several algorithms, whose sums differ in their last bits and which take different times on the double's clock; which one it suggests
// first depends on the number of rows, and two of them give other bits every time: whoever chooses wrongly is seen.
// LOMO_DOUBLE_LT_VERSION: of the library.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "cublas/api.h"
#include "double/numbers.h"
#include "double/world.h"

using namespace lomo;
using namespace lomo::cublas;

#define EXPORT(type) extern "C" __attribute__((visibility("default"))) type

namespace {

struct Desc {
  int compute, scale;
  std::int32_t transpose_first = 0, transpose_second = 0;
};
struct Matrix {
  int type;
  std::uint64_t rows, columns;
  std::int64_t stride;
  std::size_t size() const { return type == type_f32 ? 4 : 2; }
  std::size_t bytes() const { return columns == 0 || rows == 0 ? 0 : ((columns - 1) * static_cast<std::uint64_t>(stride) + rows) * size(); }
};

struct Wish {
  std::uint32_t alignment = 256, reductions = 7;
  std::uint64_t workspace = 0;
};

twin::Format format(const Matrix& m) { return m.type == type_f32 ? twin::Format::f32 : m.type == type_f16 ? twin::Format::f16 : twin::Format::bf16; }
float get(const Matrix& m, const void* p, std::uint64_t i) { return twin::get(format(m), p, i); }
void put(const Matrix& m, void* p, std::uint64_t i, float x) { twin::put(format(m), p, i, x); }

// A sum over k is made in blocks of `block` that are added one after the other; a block of 0 is one ascending sum.
struct Kind {
  std::uint64_t id, block;
  double cost;               // milliseconds for a million multiplications
  std::uint32_t reduction;   // as the library says it: 0 none, 1 in place, 2 in scratch
  std::int32_t split;
  bool any_order;            // the blocks are added in another order every time
  std::size_t workspace;
};
constexpr Kind kinds[] = {
    {11, 0, 3.0, 0, 1, false, 0},                          // plain
    {12, 8, 0.5, 1, 4, true, 1024},                        // splits k, by atomics: the fastest
    {13, 16, 1.0, 0, 1, false, 512},                       // the fastest of those that may be used
    {14, 4, 2.0, 0, 1, false, 0},                          // first choice for a few rows
    {15, 32, 0.8, 2, 2, false, std::size_t{1} << 16},      // splits k, in order, with scratch
    {16, 8, 0.6, 1, 2, true, 0},                           // splits k by atomics, and is suggested although reductions were ruled out
    {17, 2, 0.1, 0, 1, false, std::size_t{64} << 20},      // wants more scratch than anybody offers
};
const Kind* kind_of(const Algorithm& a) {
  for (const Kind& k : kinds)
    if (k.id == a.data[1]) return &k;
  return nullptr;
}

// The operands as f32, the first with k fastest, so that the inner loop runs over both rows at once.
__attribute__((optimize("O3"))) void multiply(const Kind& kind, const Desc& d, float alpha, float beta, const Matrix& a, const void* pa, const Matrix& b, const void* pb, const Matrix& c, void* pc) {
  const std::uint64_t m = c.rows, n = c.columns, k = d.transpose_first != 0 ? a.rows : a.columns;
  std::vector<float> first(m * k), second(n * k);
  for (std::uint64_t i = 0; i < m; ++i)
    for (std::uint64_t p = 0; p < k; ++p) {
      const std::uint64_t row = d.transpose_first != 0 ? p : i, column = d.transpose_first != 0 ? i : p;
      first[p * m + i] = get(a, pa, column * static_cast<std::uint64_t>(a.stride) + row);
    }
  for (std::uint64_t j = 0; j < n; ++j)
    for (std::uint64_t p = 0; p < k; ++p) {
      const std::uint64_t row = d.transpose_second != 0 ? j : p, column = d.transpose_second != 0 ? p : j;
      second[j * k + p] = get(b, pb, column * static_cast<std::uint64_t>(b.stride) + row);
    }
  static std::uint64_t turn = 0;
  const std::uint64_t block = kind.block == 0 ? std::max<std::uint64_t>(k, 1) : kind.block, blocks = (k + block - 1) / block;
  const std::uint64_t start = kind.any_order ? turn++ : 0;
  std::vector<float> sums(m), part(m);
  for (std::uint64_t j = 0; j < n; ++j) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (std::uint64_t s = 0; s < blocks; ++s) {
      const std::uint64_t from = (s + start) % blocks * block;
      std::fill(part.begin(), part.end(), 0.0f);
      for (std::uint64_t p = from; p < std::min(k, from + block); ++p) {
        const float x = second[j * k + p];
        const float* __restrict row = &first[p * m];
        float* __restrict to = part.data();
        for (std::uint64_t i = 0; i < m; ++i) to[i] += row[i] * x;
      }
      for (std::uint64_t i = 0; i < m; ++i) sums[i] += part[i];
    }
    for (std::uint64_t i = 0; i < m; ++i) {
      const std::uint64_t at = j * static_cast<std::uint64_t>(c.stride) + i;
      put(c, pc, at, alpha * sums[i] + (beta == 0 ? 0.0f : beta * get(c, pc, at)));
    }
  }
  twin::spend(kind.cost * static_cast<double>(m * n * k) * 1e-6);
}

}  // namespace

EXPORT(Status) cublasLtCreate(Handle* h) {
  static char body;
  *h = reinterpret_cast<Handle>(&body);
  return success;
}
EXPORT(Status) cublasLtDestroy(Handle) { return success; }
EXPORT(std::size_t) cublasLtGetVersion() { return twin::setting("LOMO_DOUBLE_LT_VERSION", 130002); }
EXPORT(Status) cublasLtMatmulDescCreate(Operation* o, int compute, int scale) {
  *o = new Desc{compute, scale};
  return success;
}
EXPORT(Status) cublasLtMatmulDescDestroy(Operation o) {
  delete static_cast<Desc*>(o);
  return success;
}
EXPORT(Status) cublasLtMatmulDescSetAttribute(Operation o, int which, const void* value, std::size_t) {
  auto* d = static_cast<Desc*>(o);
  if (which == operation_transpose_a) std::memcpy(&d->transpose_first, value, 4);
  else if (which == operation_transpose_b) std::memcpy(&d->transpose_second, value, 4);
  else return not_supported;
  return success;
}
EXPORT(Status) cublasLtMatrixLayoutCreate(Layout* l, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
  if (stride < static_cast<std::int64_t>(rows)) return 7;  // invalid value
  *l = new Matrix{type, rows, columns, stride};
  return success;
}
EXPORT(Status) cublasLtMatrixLayoutDestroy(Layout l) {
  delete static_cast<Matrix*>(l);
  return success;
}
EXPORT(Status) cublasLtMatmulPreferenceCreate(Preference* p) {
  *p = new Wish;
  return success;
}
EXPORT(Status) cublasLtMatmulPreferenceDestroy(Preference p) {
  delete static_cast<Wish*>(p);
  return success;
}
EXPORT(Status) cublasLtMatmulPreferenceSetAttribute(Preference p, int which, const void* value, std::size_t) {
  auto* wish = static_cast<Wish*>(p);
  if (which == preference_alignment_a) std::memcpy(&wish->alignment, value, 4);
  if (which == preference_reductions) std::memcpy(&wish->reductions, value, 4);
  if (which == preference_workspace) std::memcpy(&wish->workspace, value, 8);
  return success;
}
// The algorithm carries the alignment that was promised.
EXPORT(Status) cublasLtMatmulAlgoGetHeuristic(Handle, Operation o, Layout a, Layout b, Layout c, Layout d, Preference p, int wanted, Heuristic* found, int* count) {
  const auto *ma = static_cast<Matrix*>(a), *mb = static_cast<Matrix*>(b), *mc = static_cast<Matrix*>(c);
  const auto* desc = static_cast<Desc*>(o);
  *count = 0;
  if (wanted < 1 || c != d || desc->compute != compute_f32 || desc->scale != type_f32) return not_supported;
  if (ma->type != mb->type || (mc->type != ma->type && mc->type != type_f32)) return not_supported;
  const auto* wish = static_cast<Wish*>(p);
  std::vector<const Kind*> order;
  for (const Kind& k : kinds) order.push_back(&k);
  const std::uint64_t rows = mc->columns;  // of the row-major product
  if (rows < 32) std::swap(order[0], order[3]);
  else if (rows < 512) std::swap(order[0], order[2]);
  for (const Kind* k : order) {
    if (*count == wanted) break;
    if (k->workspace > wish->workspace || (k->reduction != 0 && (k->reduction & wish->reductions) == 0 && k->id != 16)) continue;
    Heuristic& h = found[(*count)++];
    h = {};
    h.algorithm.data[0] = wish->alignment;
    h.algorithm.data[1] = k->id;
    h.workspace = k->workspace;
    h.state = success;
  }
  return success;
}
EXPORT(Status) cublasLtMatmulAlgoCheck(Handle, Operation, Layout, Layout, Layout, Layout, const Algorithm* a, Heuristic* facts) {
  const Kind* kind = kind_of(*a);
  if (kind == nullptr) return 7;
  *facts = {};
  facts->algorithm = *a;
  facts->workspace = kind->workspace;
  facts->state = success;
  return success;
}
EXPORT(Status) cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* a, int which, void* value, std::size_t bytes, std::size_t* written) {
  const Kind* kind = kind_of(*a);
  if (kind == nullptr || bytes != 4) return 7;
  if (which == configuration_reduction) std::memcpy(value, &kind->reduction, 4);
  else if (which == configuration_split) std::memcpy(value, &kind->split, 4);
  else return 7;
  *written = 4;
  return success;
}
EXPORT(Status) cublasLtMatmul(Handle, Operation o, const void* alpha, const void* a, Layout la, const void* b, Layout lb, const void* beta, const void* c, Layout lc, void* d, Layout, const Algorithm* algorithm, void* workspace, std::size_t bytes, cu::Stream stream) {
  const std::lock_guard lock(twin::world().mutex);
  if (twin::world().lost != cu::success) return 14;  // internal error
  const Desc desc = *static_cast<Desc*>(o);
  const Matrix ma = *static_cast<Matrix*>(la), mb = *static_cast<Matrix*>(lb), mc = *static_cast<Matrix*>(lc);
  const std::uint64_t k = desc.transpose_first != 0 ? ma.rows : ma.columns, k2 = desc.transpose_second != 0 ? mb.columns : mb.rows;
  if (k != k2 || mc.rows != (desc.transpose_first != 0 ? ma.columns : ma.rows) || mc.columns != (desc.transpose_second != 0 ? mb.rows : mb.columns) || c != d) return 7;
  const Kind* kind = kind_of(*algorithm);
  if (kind == nullptr || kind->workspace > bytes) return 7;
  for (const void* p : {a, b, c})
    if (reinterpret_cast<std::uintptr_t>(p) % algorithm->data[0] != 0) return 7;
  if (!twin::on_device(a, ma.bytes()) || !twin::on_device(b, mb.bytes()) || !twin::on_device(d, mc.bytes()) || (bytes > 0 && !twin::on_device(workspace, bytes))) return 7;
  twin::load_lazily("cublasLt " + std::to_string(ma.type));
  float x, y;
  std::memcpy(&x, alpha, 4);
  std::memcpy(&y, beta, 4);
  twin::enqueue(stream, [=] {
    std::memset(workspace, 0xff, kind->workspace);
    multiply(*kind, desc, x, y, ma, a, mb, b, mc, d);
  });
  return success;
}
