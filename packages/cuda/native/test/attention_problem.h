// Attention problems for the test: operands with rows outside segments poisoned, what the float64 definition makes of them, and how far
// a kernel may be from that.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "lomo/kernel.h"
#include "lomo/registry.h"

namespace {

using namespace lomo;
using Numbers = std::vector<double>;
constexpr double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();

int failures = 0, passed = 0;
void check(bool ok, const std::string& what) {
  ++(ok ? passed : failures);
  if (!ok) std::printf("FAILED %s\n", what.c_str());
}

float nearest_bf16(float x) {
  std::uint32_t u;
  std::memcpy(&u, &x, 4);
  u = x != x ? 0x7fffffffu : (u + 0x7fffu + (u >> 16 & 1)) & 0xffff0000u;
  std::memcpy(&x, &u, 4);
  return x;
}

// Memory of its own for each operand, so that a sanitizer sees its ends; `skew` elements in front make it unaligned.
struct Tensor {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::vector<unsigned char> bytes;
  std::size_t skew = 0;

  std::size_t count() const {
    std::size_t n = 1;
    for (const std::int64_t d : shape) n *= static_cast<std::size_t>(d);
    return n;
  }
  unsigned char* data() { return bytes.data() + skew * size_of(dtype); }
  double at(std::size_t i) const {
    const unsigned char* p = bytes.data() + (skew + i) * size_of(dtype);
    if (dtype == DType::i32) return *reinterpret_cast<const std::int32_t*>(p);
    if (dtype == DType::f32) return *reinterpret_cast<const float*>(p);
    const std::uint32_t u = static_cast<std::uint32_t>(*reinterpret_cast<const std::uint16_t*>(p)) << 16;
    float x;
    std::memcpy(&x, &u, 4);
    return x;
  }
  void set(std::size_t i, double x) {
    unsigned char* p = bytes.data() + (skew + i) * size_of(dtype);
    if (dtype == DType::i32) *reinterpret_cast<std::int32_t*>(p) = static_cast<std::int32_t>(x);
    else if (dtype == DType::f32) *reinterpret_cast<float*>(p) = static_cast<float>(x);
    else {
      const float y = nearest_bf16(static_cast<float>(x));
      std::memcpy(p, reinterpret_cast<const char*>(&y) + 2, 2);
    }
  }
  Numbers numbers() const {
    Numbers all(count());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = at(i);
    return all;
  }
  Operand operand() {
    Operand o;
    o.data = data();
    o.dtype = dtype;
    o.rank = static_cast<std::int32_t>(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) o.dim[i] = shape[i];
    return o;
  }
};

// All ones: NaN.
Tensor empty(DType dtype, std::vector<std::int64_t> shape, std::size_t skew = 0) {
  Tensor t{dtype, std::move(shape), {}, skew};
  t.bytes.assign((t.count() + skew) * size_of(dtype), 0xff);
  return t;
}

struct Case {
  DType dtype = DType::f32;
  std::int64_t heads = 2, groups = 1, d = 64;
  std::vector<std::pair<int, int>> segments;  // queries, keys
  bool causal = true;
  int window = 0, before = 0, after = 0;  // rows of q and k outside every segment
  double scale = 0;                       // 0: 1 / sqrt(d)
  std::size_t skew = 0;
  double spread = 1;

  std::string text() const {
    std::string s = std::string(name_of(dtype)) + " heads " + std::to_string(heads) + "/" + std::to_string(groups) + " d " + std::to_string(d) + (causal ? " causal" : "") + " window " + std::to_string(window) + " skew " + std::to_string(skew);
    for (const auto& [q, k] : segments) s += " " + std::to_string(q) + ":" + std::to_string(k);
    return s;
  }
};

struct Problem {
  Case c;
  double scale = 1;
  std::int64_t tokens = 0, keys = 0, max_q = 1, max_k = 1;
  Tensor q, k, v, dout, cu_q, cu_k, o, lse;  // o and lse as the definition has them, rounded
  Numbers want_o, want_lse, dq, dk, dv;
};

template <class F> void visit(const Problem& p, F f) {
  for (std::size_t s = 0; s < p.c.segments.size(); ++s) {
    const auto q0 = static_cast<std::int64_t>(p.cu_q.at(s)), k0 = static_cast<std::int64_t>(p.cu_k.at(s));
    const auto [queries, keys] = p.c.segments[s];
    for (std::int64_t i = 0; i < queries; ++i) {
      const std::int64_t own = i + keys - queries, to = p.c.causal ? std::min<std::int64_t>(keys, own + 1) : keys, from = p.c.window > 0 ? std::max<std::int64_t>(0, own - p.c.window + 1) : 0;
      for (std::int64_t h = 0; to > from && h < p.c.heads; ++h) f(q0 + i, h, k0 + from, k0 + to);
    }
  }
}

double dot(const Numbers& a, std::int64_t i, const Numbers& b, std::int64_t j, std::int64_t d) {
  double sum = 0;
  for (std::int64_t x = 0; x < d; ++x) sum += a[static_cast<std::size_t>(i + x)] * b[static_cast<std::size_t>(j + x)];
  return sum;
}

void define(Problem& p, bool backward) {
  const auto [heads, groups, d] = std::tuple{p.c.heads, p.c.groups, p.c.d};
  const Numbers q = p.q.numbers(), k = p.k.numbers(), v = p.v.numbers(), dout = p.dout.numbers();
  p.want_o.assign(q.size(), 0);
  p.want_lse.assign(static_cast<std::size_t>(p.tokens * heads), -inf);
  const auto key_at = [&, g = groups, n = d, per = heads / groups](std::int64_t key, std::int64_t h) { return (key * g + h / per) * n; };
  visit(p, [&, H = heads, n = d](std::int64_t i, std::int64_t h, std::int64_t from, std::int64_t to) {
    const std::int64_t at = (i * H + h) * n;
    Numbers s;
    for (std::int64_t key = from; key < to; ++key) s.push_back(p.scale * dot(q, at, k, key_at(key, h), n));
    const double top = *std::max_element(s.begin(), s.end());
    double sum = 0;
    for (const double x : s) sum += std::exp(x - top);
    p.want_lse[static_cast<std::size_t>(h * p.tokens + i)] = top + std::log(sum);
    for (std::int64_t key = from; key < to; ++key)
      for (std::int64_t j = 0; j < n; ++j) p.want_o[static_cast<std::size_t>(at + j)] += std::exp(s[static_cast<std::size_t>(key - from)] - top) / sum * v[static_cast<std::size_t>(key_at(key, h) + j)];
  });
  p.o = empty(p.c.dtype, {p.tokens, heads, d}, p.c.skew);
  p.lse = empty(DType::f32, {heads, p.tokens});
  for (std::size_t i = 0; i < p.want_o.size(); ++i) p.o.set(i, p.want_o[i]);
  for (std::size_t i = 0; i < p.want_lse.size(); ++i) p.lse.set(i, p.want_lse[i]);
  if (!backward) return;
  const Numbers o = p.o.numbers(), lse = p.lse.numbers();
  p.dq.assign(q.size(), 0);
  p.dk.assign(k.size(), 0);
  p.dv.assign(k.size(), 0);
  visit(p, [&, H = heads, n = d](std::int64_t i, std::int64_t h, std::int64_t from, std::int64_t to) {
    const std::int64_t at = (i * H + h) * n;
    const double inner = dot(dout, at, o, at, n);
    for (std::int64_t key = from; key < to; ++key) {
      const std::int64_t ka = key_at(key, h);
      const double w = std::exp(p.scale * dot(q, at, k, ka, n) - lse[static_cast<std::size_t>(h * p.tokens + i)]), ds = p.scale * w * (dot(dout, at, v, ka, n) - inner);
      for (std::int64_t j = 0; j < n; ++j) {
        const auto x = static_cast<std::size_t>(at + j), y = static_cast<std::size_t>(ka + j);
        p.dv[y] += w * dout[x];
        p.dq[x] += ds * k[y];
        p.dk[y] += ds * q[x];
      }
    }
  });
}

Problem make(const Case& c, bool backward, unsigned seed = 1) {
  Problem p;
  p.c = c;
  p.scale = c.scale != 0 ? c.scale : 1 / std::sqrt(static_cast<double>(c.d));
  Numbers cu_q{static_cast<double>(c.before)}, cu_k{static_cast<double>(c.before)};
  for (const auto& [q, k] : c.segments) {
    cu_q.push_back(cu_q.back() + q);
    cu_k.push_back(cu_k.back() + k);
    p.max_q = std::max<std::int64_t>(p.max_q, q);
    p.max_k = std::max<std::int64_t>(p.max_k, k);
  }
  p.tokens = static_cast<std::int64_t>(cu_q.back()) + c.after;
  p.keys = static_cast<std::int64_t>(cu_k.back()) + c.after;
  const auto numbers = [](const Numbers& n) {
    Tensor t = empty(DType::i32, {static_cast<std::int64_t>(n.size())});
    for (std::size_t i = 0; i < n.size(); ++i) t.set(i, n[i]);
    return t;
  };
  p.cu_q = numbers(cu_q);
  p.cu_k = numbers(cu_k);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, c.spread);
  // Rows outside segments stay NaN: nothing may come of them.
  const auto fill = [&](Tensor& t, const Numbers& cu) {
    const std::size_t row = t.count() / static_cast<std::size_t>(std::max<std::int64_t>(1, t.shape[0]));
    for (std::size_t i = 0; i < t.count(); ++i) {
      const double x = normal(random);
      t.set(i, i / row >= cu.front() && i / row < cu.back() ? x : nan);
    }
  };
  p.q = empty(c.dtype, {p.tokens, c.heads, c.d}, c.skew);
  p.dout = p.q;
  p.k = empty(c.dtype, {p.keys, c.groups, c.d}, c.skew);
  p.v = p.k;
  fill(p.q, cu_q);
  fill(p.dout, cu_q);
  fill(p.k, cu_k);
  fill(p.v, cu_k);
  define(p, backward);
  return p;
}

double largest(const Numbers& all) {
  double most = 0;
  for (const double x : all)
    if (std::isfinite(x)) most = std::max(most, std::abs(x));
  return most;
}

// The bar of packages/tensor/conformance/tolerance.ts, and the largest error as a share of it. A tensor that cancels to zero everywhere is
// measured against `otherwise`.
double compare(const std::string& what, const Tensor& got, const Numbers& want, double length, double rounded, double otherwise = 0) {
  const double magnitude = largest(want), accumulated = 0x1p-24 * (16 + 2 * length) * (magnitude == 0 ? otherwise : magnitude);
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double x = got.at(i);
    if (x == want[i]) continue;
    double bar = accumulated;
    if (got.dtype == DType::bf16) bar += std::exp2(std::max(-126.0, std::floor(std::log2(std::abs(want[i]) + accumulated + 5e-324))) - 8) + 0x1p-8 * rounded;
    const double off = std::abs(x - want[i]);
    if (!(off <= bar)) {
      check(false, what + ", element " + std::to_string(i) + ": " + std::to_string(x) + ", the definition says " + std::to_string(want[i]) + ", off by " + std::to_string(off) + ", allowed " + std::to_string(bar));
      return inf;
    }
    worst = std::max(worst, off / bar);
  }
  check(true, what);
  return worst;
}

double flops(const Problem& p) {
  const double seen = std::min<double>(static_cast<double>(std::min(p.keys, p.max_k)), p.c.window > 0 ? p.c.window : inf);
  return 4.0 * static_cast<double>(p.tokens * p.c.heads * p.c.d) * (p.c.causal && p.max_q > 1 ? seen / 2 : seen);
}
double length_of(double work, std::size_t written) { return std::max(1.0, work / static_cast<double>(std::max<std::size_t>(1, written))); }

}  // namespace
