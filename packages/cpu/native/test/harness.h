// Runs kernel rows of every instruction set the machine has against double-precision references: closeness, thread invariance, writes within bounds.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <lomo/error.h>
#include <lomo/kernel.h>

namespace test {

using lomo::Call;
using lomo::DType;
using lomo::Kernel;
using lomo::Operand;

// Conversions written apart from the kernels' own.
inline double decode(const void* p, DType t) {
  std::uint16_t h;
  switch (t) {
    case DType::f32: { float f; std::memcpy(&f, p, 4); return f; }
    case DType::i32: { std::int32_t i; std::memcpy(&i, p, 4); return i; }
    case DType::u8: return *static_cast<const std::uint8_t*>(p);
    case DType::bf16: { std::memcpy(&h, p, 2); const std::uint32_t u = static_cast<std::uint32_t>(h) << 16; float f; std::memcpy(&f, &u, 4); return f; }
    case DType::f16: { _Float16 f; std::memcpy(&f, p, 2); return static_cast<double>(f); }
  }
  return 0;
}
inline void encode(void* p, DType t, double x) {
  switch (t) {
    case DType::f32: { const float f = static_cast<float>(x); std::memcpy(p, &f, 4); break; }
    case DType::i32: { const std::int32_t i = static_cast<std::int32_t>(x); std::memcpy(p, &i, 4); break; }
    case DType::u8: *static_cast<std::uint8_t*>(p) = static_cast<std::uint8_t>(x); break;
    case DType::f16: { const _Float16 f = static_cast<_Float16>(static_cast<float>(x)); std::memcpy(p, &f, 2); break; }
    case DType::bf16: {
      if (std::isnan(x)) { const std::uint16_t nan = 0x7fc0; std::memcpy(p, &nan, 2); break; }
      if (std::isinf(x) || x == 0) { const std::uint16_t h = static_cast<std::uint16_t>((std::signbit(x) ? 0x8000 : 0) | (x == 0 ? 0 : 0x7f80)); std::memcpy(p, &h, 2); break; }
      int e; std::frexp(x, &e);
      const double unit = std::ldexp(1.0, std::max(e - 8, -133));
      const float f = static_cast<float>(std::nearbyint(x / unit) * unit);
      std::uint32_t u; std::memcpy(&u, &f, 4);
      const std::uint16_t h = static_cast<std::uint16_t>(u >> 16); std::memcpy(p, &h, 2);
    }
  }
}
// Distance between neighbours at x, in storage t.
inline double spacing(double x, DType t) {
  if (t == DType::i32 || t == DType::u8) return 0;
  int e; std::frexp(x, &e);
  return t == DType::f32 ? std::ldexp(1.0, std::max(e - 24, -149)) : t == DType::bf16 ? std::ldexp(1.0, std::max(e - 8, -133)) : std::ldexp(1.0, std::max(e - 11, -24));
}

struct Tensor {
  DType dtype;
  std::vector<std::int64_t> shape;
  std::shared_ptr<char[]> data;  // exactly the size, so that a sanitizer sees one byte too far

  Tensor(DType t, std::vector<std::int64_t> s) : dtype(t), shape(std::move(s)), data(new char[bytes()]) { std::memset(data.get(), 0xff, bytes()); }
  std::int64_t count() const { std::int64_t n = 1; for (auto d : shape) n *= d; return n; }
  std::size_t bytes() const { return static_cast<std::size_t>(count()) * lomo::size_of(dtype); }
  void* at(std::int64_t i) const { return data.get() + static_cast<std::size_t>(i) * lomo::size_of(dtype); }
  double operator[](std::int64_t i) const { return decode(at(i), dtype); }
  Tensor& put(std::int64_t i, double x) { encode(at(i), dtype, x); return *this; }
  Tensor copy() const { Tensor t(dtype, shape); std::memcpy(t.data.get(), data.get(), bytes()); return t; }
  bool same(const Tensor& o) const { return std::memcmp(data.get(), o.data.get(), bytes()) == 0; }
  Operand operand() const {
    Operand o;
    o.data = data.get(); o.dtype = dtype; o.rank = static_cast<std::int32_t>(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) o.dim[i] = shape[i];
    return o;
  }
};
using Tensors = std::vector<Tensor>;
using Numbers = std::vector<double>;

inline std::mt19937_64& random_source() { static std::mt19937_64 source(20240607); return source; }
inline Tensor normal(DType t, std::vector<std::int64_t> shape, double deviation = 1, double mean = 0) {
  Tensor x(t, std::move(shape));
  std::normal_distribution<double> n(mean, deviation);
  for (std::int64_t i = 0; i < x.count(); ++i) x.put(i, n(random_source()));
  return x;
}
inline Tensor integers(std::vector<std::int64_t> shape, int low, int high) {
  Tensor x(DType::i32, std::move(shape));
  for (std::int64_t i = 0; i < x.count(); ++i) x.put(i, std::uniform_int_distribution<int>(low, high)(random_source()));
  return x;
}
inline Tensor numbers(DType t, const Numbers& v) {
  Tensor x(t, {static_cast<std::int64_t>(v.size())});
  for (std::size_t i = 0; i < v.size(); ++i) x.put(static_cast<std::int64_t>(i), v[i]);
  return x;
}

struct Isa { const char* name; const Kernel* const* files; };
const std::vector<Isa>& isas();  // those this machine runs

inline int& failures() { static int n = 0; return n; }
inline int& passes() { static int n = 0; return n; }
inline void expect(bool ok, const std::string& what) {
  if (ok) { ++passes(); return; }
  ++failures();
  std::printf("FAIL %s\n", what.c_str());
}

struct Launch { std::string name; Tensors ins, inouts, outs; Numbers attributes; };

inline const Kernel* find(const Isa& isa, const Launch& l) {
  std::vector<DType> a, b, c;
  for (auto& t : l.ins) a.push_back(t.dtype);
  for (auto& t : l.inouts) b.push_back(t.dtype);
  for (auto& t : l.outs) c.push_back(t.dtype);
  const lomo::Signature s{a.data(), static_cast<std::int32_t>(a.size()), b.data(), static_cast<std::int32_t>(b.size()), c.data(), static_cast<std::int32_t>(c.size())};
  for (auto file = isa.files; *file != nullptr; ++file)
    for (auto k = *file; k->name != nullptr; ++k)
      if (l.name == k->name && k->accepts(s)) return k;
  return nullptr;
}

// Runs on copies: returns inouts then outs.
inline Tensors run(const Isa& isa, const Launch& l, int threads = 1) {
  const Kernel* k = find(isa, l);
  if (k == nullptr) { expect(false, std::string(isa.name) + ": no kernel " + l.name); return {}; }
  Tensors result;
  std::vector<Operand> operands;
  for (auto& t : l.ins) operands.push_back(t.operand());
  for (auto& t : l.inouts) result.push_back(t.copy());
  for (auto& t : l.outs) result.emplace_back(t.dtype, t.shape);
  for (auto& t : result) operands.push_back(t.operand());
  Call call;
  call.operands = operands.data();
  call.ins = static_cast<std::int32_t>(l.ins.size()); call.inouts = static_cast<std::int32_t>(l.inouts.size()); call.outs = static_cast<std::int32_t>(l.outs.size());
  call.attributes = l.attributes.data();
  call.threads = threads;
  std::unique_ptr<char[]> space;
  if (k->workspace != nullptr) {
    call.workspace_bytes = k->workspace(call);
    space.reset(new char[call.workspace_bytes + 64]);
    call.workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(space.get()) + 63) / 64 * 64);
  }
  k->run(call);
  return result;
}

// Compares one tensor: error within `units` of the storage's spacing at the value plus `absolute`.
inline void near(const std::string& what, const Tensor& got, const Numbers& want, double units, double absolute) {
  for (std::int64_t i = 0; i < got.count(); ++i) {
    const double w = want[static_cast<std::size_t>(i)], g = got[i];
    if (std::isnan(w) ? std::isnan(g) : (g == w || std::fabs(g - w) <= units * spacing(w, got.dtype) + absolute)) continue;
    char text[200];
    std::snprintf(text, sizeof text, "%s: element %lld is %.9g, wants %.9g", what.c_str(), static_cast<long long>(i), g, w);
    return expect(false, text);
  }
  expect(true, what);
}

struct Tolerance { double units = 2, absolute = 0; };

// Every instruction set, 1 to 4 threads: close to `want` (inouts then outs; an empty list is not compared), and the same bytes on any
// number of threads. `exact_isa`: also the same bytes on every instruction set.
inline void check(const Launch& l, const std::vector<Numbers>& want, Tolerance tolerance = {}, bool exact_isa = false) {
  Tensors reference;
  for (const Isa& isa : isas()) {
    std::string what = std::string(isa.name) + " " + l.name + " ";
    for (auto& t : l.ins.empty() ? l.inouts : l.ins) { what += "["; for (auto d : t.shape) what += std::to_string(d) + ","; what.back() = ']'; what += std::to_string(static_cast<int>(t.dtype)); }
    const Tensors one = run(isa, l);
    if (one.empty()) continue;
    for (std::size_t i = 0; i < want.size(); ++i)
      if (!want[i].empty()) near(what + " result " + std::to_string(i), one[i], want[i], tolerance.units, tolerance.absolute);
    for (int threads : {2, 3, 4}) {
      const Tensors more = run(isa, l, threads);
      for (std::size_t i = 0; i < one.size(); ++i) expect(one[i].same(more[i]), what + ": result " + std::to_string(i) + " differs on " + std::to_string(threads) + " threads");
    }
    if (exact_isa && !reference.empty())
      for (std::size_t i = 0; i < one.size(); ++i) expect(one[i].same(reference[i]), what + ": result " + std::to_string(i) + " differs from another instruction set");
    if (reference.empty()) reference = one;
  }
}

// The error code a launch throws, or "" if it throws none.
inline std::string thrown(const Isa& isa, const Launch& l) {
  try { run(isa, l); } catch (const lomo::Error& e) { return e.code(); }
  return "";
}

}  // namespace test
