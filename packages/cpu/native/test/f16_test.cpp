// Kernels that read an f16 weight beside f32 activations: the bits of the same kernel on the weight cast to f32; and the cast of every f16.
#include "harness.h"

#include "../onednn/widen.h"

namespace test {
namespace {

// `l` once with its operand 1 as it is, once cast: the same bits, on any number of threads.
void like_cast(const Launch& l) {
  Launch cast = l;
  Tensor& w = cast.ins[1];
  Tensor wide(DType::f32, w.shape);
  for (std::int64_t i = 0; i < w.count(); ++i) wide.put(i, w[i]);
  w = wide;
  for (const Isa& isa : isas()) {
    const Tensors want = run(isa, cast);
    for (int threads : {1, 3}) {
      const Tensors got = run(isa, l, threads);
      for (std::size_t i = 0; i < want.size(); ++i)
        expect(i < got.size() && got[i].same(want[i]), std::string(isa.name) + " " + l.name + " with an f16 weight: result " + std::to_string(i) + " on " + std::to_string(threads) + " threads");
    }
  }
}

void norms(std::int64_t rows, std::int64_t h) {
  const Tensor x = normal(DType::f32, {rows, h}), w = normal(DType::f16, {h}, 0.2, 1), dy = normal(DType::f32, {rows, h});
  Tensor rstd(DType::f32, {rows});
  for (std::int64_t i = 0; i < rows; ++i) rstd.put(i, 0.5 + 0.001 * static_cast<double>(i));
  like_cast({"rms_norm", {x, w}, {}, {Tensor(DType::f32, {rows, h}), Tensor(DType::f32, {rows})}, {1e-5}});
  like_cast({"rms_norm_backward", {x, w, rstd, dy}, {normal(DType::f32, {2, h})}, {Tensor(DType::f32, {rows, h})}, {500}});
}

void widened(std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  Tensor from(DType::f16, {rows, stride}), to(DType::f32, {rows, columns});
  for (std::int64_t i = 0; i < from.count(); ++i) {
    const auto bits = static_cast<std::uint16_t>(i * 7 + 3);
    std::memcpy(from.at(i), &bits, 2);
  }
  lomo::onednn::widen(static_cast<const std::uint16_t*>(from.at(0)), rows, columns, stride, static_cast<float*>(to.at(0)));
  bool right = true;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      const double got = to[r * columns + c], want = from[r * stride + c];
      right = right && (std::isnan(want) ? std::isnan(got) : got == want && std::signbit(got) == std::signbit(want));
    }
  expect(right, "widen " + std::to_string(rows) + " x " + std::to_string(columns));
}

}  // namespace

void test_f16() {
  for (const auto& [rows, h] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 16}, {5, 17}, {70, 100}, {515, 33}}) norms(rows, h);
  const Tensor w = normal(DType::f16, {50, 37});
  like_cast({"embedding", {integers({80}, 0, 49), w}, {}, {Tensor(DType::f32, {80, 37})}, {}});
  for (const Isa& isa : isas()) {
    expect(thrown(isa, {"embedding", {integers({8}, 50, 60), w}, {}, {Tensor(DType::f32, {8, 37})}, {}}) == "BadId", "an id outside an f16 table is refused");
    expect(thrown(isa, {"rms_norm", {normal(DType::f32, {4, 8}), normal(DType::f16, {9})}, {}, {Tensor(DType::f32, {4, 8}), Tensor(DType::f32, {4})}, {1e-5}}) == "BadShape", "an f16 norm of another width is refused");
  }
  widened(1, 65536, 65536);  // every f16 there is
  widened(7, 5, 9);
  widened(300, 301, 310);
  widened(2, 0, 3);
}

}  // namespace test
