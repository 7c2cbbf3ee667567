// A product of one shape whose bits do not depend on the number of threads or on the rows beside a row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "lomo/kernel.h"
#include "onednn/library.h"
#include "onednn/primitive.h"

namespace lomo::onednn {

// Where oneDNN has its dtypes, it works on the operands as they lie; else they pass through the workspace, as f32.
class Product {
 public:
  Product(const Library& library, const Shape& shape, int threads);

  std::size_t workspace() const { return total_; }
  // Call on the executor's thread, whose OpenMP thread count is the backend's.
  void run(const void* a, const void* b, const void* bias, void* c, void* workspace) const;

 private:
  // One primitive per piece of the inner dimension; `later` and `last` add to what is there. Null where not needed.
  struct Pieces {
    std::unique_ptr<Primitive> first, later, last;
    bool exist() const;
    std::size_t scratchpad() const;
  };

  void divide(bool wide);
  bool arrange(const Library& library, bool pack);
  Pieces make(const Library& library, Shape shape) const;
  void multiply(const Pieces& pieces, const Shape& s, int lane, Pointers p) const;
  void run_rest(int lane, Pointers p) const;
  void run_panels(const Pointers& p) const;
  std::size_t place(std::size_t bytes);

  Shape shape_, inner_;       // as asked for; as computed
  int threads_, lanes_ = 1;   // the backend's; how many run panels at once
  bool alone_ = false;        // primitives are single-threaded, panels are ours to spread
  std::int64_t step_ = 0;     // inner elements per piece
  std::int64_t panel_ = 0, full_ = 0;  // rows of a panel; whole panels
  Shape rest_;                // the last panel, m 0 where there is none; it may have more rows than are left
  std::int64_t left_ = 0;     // rows that are left
  Pieces panel_pieces_, rest_pieces_;
  bool pack_in_ = false, pack_out_ = false, pack_rest_ = false;
  // Byte offsets in the workspace, and sizes.
  std::size_t a_ = 0, b_ = 0, bias_ = 0, c_ = 0, rest_a_ = 0, rest_c_ = 0, scratchpad_ = 0, lane_bytes_ = 0, total_ = 0;
};

}  // namespace lomo::onednn
