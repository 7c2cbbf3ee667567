// Row-major products for a library that thinks in columns: c^T = op(b)^T op(a)^T, so b comes first.
#include "cublas/products.h"

#include <algorithm>

#include "lomo/error.h"

namespace lomo {
namespace {

int type_of(DType t) { return t == DType::f32 ? cublas::type_f32 : t == DType::bf16 ? cublas::type_bf16 : cublas::type_f16; }

// The largest power of two, at most 256, that all of them are multiples of.
unsigned alignment_of(std::initializer_list<const void*> pointers) {
  std::uintptr_t all = 256;
  for (const void* p : pointers) all |= reinterpret_cast<std::uintptr_t>(p);
  return static_cast<unsigned>(all & (~all + 1));
}

}  // namespace

Products::~Products() {
  if (handle_ == nullptr) return;
  for (Prepared& p : prepared_) {
    for (const cublas::Layout l : {p.a, p.b, p.c}) lt_.layout_destroy(l);
    lt_.operation_destroy(p.operation);
  }
  lt_.destroy(handle_);
}

void Products::open() {
  std::vector<std::string> folders = folders_;
  for (const char* f : {"/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"}) folders.push_back(f);
  library_ = std::make_unique<Library>(Wanted{"cuBLASLt", path_, {"libcublasLt.so.13", "libcublasLt.so.12"}, folders,
                                              "It comes with CUDA, or by `pip install nvidia-cublas`: give the folder that holds it as `folders`, or its path as `cublasLt`."});
#define X(type, name, symbol_name, parameters) lt_.name = reinterpret_cast<decltype(lt_.name)>(library_->symbol(symbol_name));
  LOMO_CUBLAS_ENTRIES(X)
#undef X
  check(lt_.create(&handle_), "cublasLtCreate");
}

std::string Products::version() const {
  const std::size_t v = lt_.get_version();  // 130002 is 13.0.2
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}

void Products::check(cublas::Status status, const char* doing, const Product* p) const {
  if (status == cublas::success) return;
  std::string what = std::string("cuda: ") + doing + " ended with status " + std::to_string(status);
  if (p != nullptr) what += " for m " + std::to_string(p->m) + ", n " + std::to_string(p->n) + ", k " + std::to_string(p->k) + " (" + path() + ")";
  throw Error("CublasError", what);
}

const Products::Prepared& Products::prepare(const Product& p, unsigned alignment, std::size_t workspace) {
  for (const Prepared& known : prepared_)
    if (known.product == p && known.alignment == alignment && known.workspace == workspace) return known;
  Prepared r;
  r.product = p;
  r.alignment = alignment;
  r.workspace = workspace;
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
  cublas::Preference preference = nullptr;
  check(lt_.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  const std::uint64_t bytes = workspace;
  check(lt_.preference_set(preference, cublas::preference_workspace, &bytes, sizeof bytes), "cublasLtMatmulPreferenceSetAttribute");
  const std::uint32_t aligned = alignment;
  for (const int which : {cublas::preference_alignment_a, cublas::preference_alignment_b, cublas::preference_alignment_c, cublas::preference_alignment_d})
    check(lt_.preference_set(preference, which, &aligned, sizeof aligned), "cublasLtMatmulPreferenceSetAttribute");
  cublas::Heuristic found{};
  int count = 0;
  const cublas::Status status = lt_.heuristic(handle_, r.operation, r.b, r.a, r.c, r.c, preference, 1, &found, &count);
  lt_.preference_destroy(preference);
  check(status == cublas::success && count == 0 ? cublas::not_supported : status, "cublasLtMatmulAlgoGetHeuristic", &p);
  r.algorithm = found.algorithm;
  return prepared_.emplace_back(r);
}

void Products::run(const Product& p, const ProductData& d, cu::Stream stream) {
  const Prepared& r = prepare(p, alignment_of({d.a, d.b, d.c}), d.workspace_bytes);
  check(lt_.matmul(handle_, r.operation, &d.alpha, d.b, r.b, d.a, r.a, &d.beta, d.c, r.c, d.c, r.c, &r.algorithm, d.workspace, d.workspace_bytes, stream), "cublasLtMatmul", &p);
}

}  // namespace lomo
