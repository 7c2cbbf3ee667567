// Products by shape.
#include "cublas/products.h"

namespace lomo {

Products::~Products() {
  for (const Prepared& p : prepared_) lt_.destroy(p.problem);
}

const Products::Prepared& Products::prepare(const Product& p, bool wide) {
  for (const Prepared& known : prepared_)
    if (known.problem.product == p && known.wide == wide) return known;
  made_.fetch_add(1, std::memory_order_relaxed);
  Prepared r{lt_.create(p), wide, {}};
  try {
    r.algorithm = choices_.algorithm_for(r.problem, wide);
    return prepared_.emplace_back(r);
  } catch (...) {
    lt_.destroy(r.problem);
    throw;
  }
}

void Products::run(const Product& p, const ProductData& d, cu::Stream stream) {
  bool wide = p.wide();
  for (const void* pointer : {d.a, d.b, static_cast<const void*>(d.c)}) wide = wide && reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
  const Prepared& r = prepare(p, wide);
  lt_.multiply(r.problem, d, r.algorithm, stream);
}

}  // namespace lomo
