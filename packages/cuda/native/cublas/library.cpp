// Row-major products for a library that thinks in columns: c^T = op(b)^T op(a)^T, so b comes first.
#include "cublas/library.h"

#include "lomo/error.h"
#include "lomo/registry.h"

namespace lomo {
namespace {

int type_of(DType t) { return t == DType::f32 ? cublas::type_f32 : t == DType::bf16 ? cublas::type_bf16 : cublas::type_f16; }

}  // namespace

std::string ProductClass::spell() const {
  return "n " + std::to_string(n) + " k " + std::to_string(k) + " ldb " + std::to_string(ldb) + (ta ? " ta" : "") + (tb ? " tb" : "") + " " + name_of(in) + " -> " + name_of(out) +
         (wide ? " by 16" : " by element");
}

CublasLt::~CublasLt() {
  if (handle_ != nullptr) lt_.destroy(handle_);
}

void CublasLt::open(const std::string& path, const std::vector<std::string>& more) {
  std::vector<std::string> folders = more;
  for (const char* f : {"/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"}) folders.push_back(f);
  library_ = std::make_unique<Library>(Wanted{"cuBLASLt", path, {"libcublasLt.so.13", "libcublasLt.so.12"}, folders,
                                              "It comes with CUDA, or by `pip install nvidia-cublas`: give the folder that holds it as `folders`, or its path as `cublasLt`."});
#define X(type, name, symbol_name, parameters) lt_.name = reinterpret_cast<decltype(lt_.name)>(library_->symbol(symbol_name));
  LOMO_CUBLAS_ENTRIES(X)
#undef X
  check(lt_.create(&handle_), "cublasLtCreate");
}

std::string CublasLt::version() const {
  const std::size_t v = lt_.get_version();  // 130002 is 13.0.2
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}

void CublasLt::check(cublas::Status status, const char* doing, const Product* p) const {
  if (status == cublas::success) return;
  std::string what = std::string("cuda: ") + doing + " ended with status " + std::to_string(status);
  if (p != nullptr) what += " for m " + std::to_string(p->m) + ", n " + std::to_string(p->n) + ", k " + std::to_string(p->k) + " (" + path() + ")";
  throw Error("CublasError", what);
}

Problem CublasLt::create(const Product& p) const {
  Problem r;
  r.product = p;
  try {
    check(lt_.operation_create(&r.operation, cublas::compute_f32, cublas::type_f32), "cublasLtMatmulDescCreate");
    const std::int32_t first = p.tb ? 1 : 0, second = p.ta ? 1 : 0;
    check(lt_.operation_set(r.operation, cublas::operation_transpose_a, &first, sizeof first), "cublasLtMatmulDescSetAttribute");
    check(lt_.operation_set(r.operation, cublas::operation_transpose_b, &second, sizeof second), "cublasLtMatmulDescSetAttribute");
    const auto layout = [&](cublas::Layout& l, DType t, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
      check(lt_.layout_create(&l, type_of(t), static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), stride), "cublasLtMatrixLayoutCreate", &p);
    };
    layout(r.b, p.in, p.tb ? p.k : p.n, p.tb ? p.n : p.k, p.ldb);
    layout(r.a, p.in, p.ta ? p.m : p.k, p.ta ? p.k : p.m, p.lda);
    layout(r.c, p.out, p.n, p.m, p.ldc);
  } catch (...) {
    destroy(r);
    throw;
  }
  return r;
}

void CublasLt::destroy(const Problem& p) const {
  for (const cublas::Layout l : {p.a, p.b, p.c})
    if (l != nullptr) lt_.layout_destroy(l);
  if (p.operation != nullptr) lt_.operation_destroy(p.operation);
}

// Partial sums that meet by atomics, or in an order that the hardware chooses, come with a reduction scheme; so do those that meet in
// order, which would do, but need scratch that grows with the product and are never needed where rows are many.
bool CublasLt::deterministic(const cublas::Algorithm& algorithm) const {
  std::uint32_t reduction = 0;
  std::int32_t split = 0;
  std::size_t written = 0;
  if (lt_.algorithm_get(&algorithm, cublas::configuration_reduction, &reduction, sizeof reduction, &written) != cublas::success || reduction != 0) return false;
  return lt_.algorithm_get(&algorithm, cublas::configuration_split, &split, sizeof split, &written) == cublas::success && (split == 0 || split == 1);
}

std::vector<cublas::Heuristic> CublasLt::suggest(const Problem& p, bool wide, int wanted) const {
  cublas::Preference preference = nullptr;
  check(lt_.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  const auto set = [&](int which, auto value) { return lt_.preference_set(preference, which, &value, sizeof value); };
  cublas::Status status = set(cublas::preference_workspace, static_cast<std::uint64_t>(product_workspace));
  if (status == cublas::success) status = set(cublas::preference_reductions, std::uint32_t{0});
  const auto bytes = [&](DType t) { return static_cast<std::uint32_t>(wide ? 16 : size_of(t)); };
  for (const int which : {cublas::preference_alignment_a, cublas::preference_alignment_b})
    if (status == cublas::success) status = set(which, bytes(p.product.in));
  for (const int which : {cublas::preference_alignment_c, cublas::preference_alignment_d})
    if (status == cublas::success) status = set(which, bytes(p.product.out));
  std::vector<cublas::Heuristic> found(static_cast<std::size_t>(wanted));
  int count = 0;
  if (status == cublas::success) {
    const cublas::Status asked = lt_.heuristic(handle_, p.operation, p.b, p.a, p.c, p.c, preference, wanted, found.data(), &count);
    if (asked == cublas::not_supported) count = 0;
    else status = asked;
  }
  lt_.preference_destroy(preference);
  check(status, "cublasLtMatmulAlgoGetHeuristic", &p.product);
  found.resize(static_cast<std::size_t>(count));
  std::erase_if(found, [&](const cublas::Heuristic& h) { return h.state != cublas::success || h.workspace > product_workspace || !deterministic(h.algorithm); });
  return found;
}

bool CublasLt::fits(const Problem& p, const cublas::Algorithm& algorithm) const {
  cublas::Heuristic facts{};
  return deterministic(algorithm) && lt_.algorithm_check(handle_, p.operation, p.b, p.a, p.c, p.c, &algorithm, &facts) == cublas::success && facts.state == cublas::success &&
         facts.workspace <= product_workspace;
}

void CublasLt::multiply(const Problem& p, const ProductData& d, const cublas::Algorithm& algorithm, cu::Stream stream) const {
  check(lt_.matmul(handle_, p.operation, &d.alpha, d.b, p.b, d.a, p.a, &d.beta, d.c, p.c, d.c, p.c, &algorithm, d.workspace, product_workspace, stream), "cublasLtMatmul", &p.product);
}

}  // namespace lomo
