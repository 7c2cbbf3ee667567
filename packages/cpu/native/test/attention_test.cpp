// attention and attention_backward against a plain double-precision reference: closeness, thread and batch invariance, misuse, speed.
#include <ctime>
#include <limits>

#include "harness.h"

#define LOMO_SET(isa)                                           \
  namespace lomo::isa {                                         \
  extern const Kernel kernels_attention[];                      \
  static const Kernel* const files[] = {kernels_attention, nullptr}; \
  }
LOMO_SET(portable)
#ifndef LOMO_PORTABLE_ONLY
LOMO_SET(avx2)
LOMO_SET(avx512)
LOMO_SET(avx512_bf16)
double fma_peak();  // peak.cpp
#endif

namespace test {
const std::vector<Isa>& isas() {
  static const std::vector<Isa> found = [] {
    std::vector<Isa> v{{"portable", lomo::portable::files}};
#ifndef LOMO_PORTABLE_ONLY
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) v.push_back({"avx2", lomo::avx2::files});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) v.push_back({"avx512", lomo::avx512::files});
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl")) v.push_back({"avx512_bf16", lomo::avx512_bf16::files});
#endif
    return v;
  }();
  return found;
}

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
using Lengths = std::vector<std::pair<int, int>>;  // queries and keys of each segment

struct Case {
  DType dtype = DType::f32;
  std::int64_t heads = 2, groups = 1, dim = 16;
  Lengths segments;
  bool causal = true;
  std::int64_t window = 0;
  std::int64_t before = 0, after = 0;  // rows of q and of k outside every segment, in front and at the end
  double scale = 0;                    // 0: 1 / sqrt(dim)
};

struct Problem {
  Case c;
  std::int64_t tokens = 0, keys = 0;
  Tensor q, k, v, dout, cu_q, cu_k;
  Numbers attributes;
};

Problem problem(const Case& c) {
  std::int64_t tokens = c.before, keys = c.before, max_q = 0, max_k = 0;
  Numbers cu_q{static_cast<double>(tokens)}, cu_k{static_cast<double>(keys)};
  for (auto [nq, nk] : c.segments) {
    tokens += nq; keys += nk;
    max_q = std::max<std::int64_t>(max_q, nq); max_k = std::max<std::int64_t>(max_k, nk);
    cu_q.push_back(static_cast<double>(tokens)); cu_k.push_back(static_cast<double>(keys));
  }
  tokens += c.after; keys += c.after;
  const double scale = c.scale != 0 ? c.scale : 1 / std::sqrt(static_cast<double>(c.dim));
  return {c, tokens, keys, normal(c.dtype, {tokens, c.heads, c.dim}), normal(c.dtype, {keys, c.groups, c.dim}), normal(c.dtype, {keys, c.groups, c.dim}),
          normal(c.dtype, {tokens, c.heads, c.dim}), numbers(DType::i32, cu_q), numbers(DType::i32, cu_k),
          {scale, c.causal ? 1.0 : 0.0, static_cast<double>(c.window), static_cast<double>(max_q), static_cast<double>(max_k)}};
}

Numbers values(const Tensor& t) {
  Numbers x(static_cast<std::size_t>(t.count()));
  for (std::int64_t i = 0; i < t.count(); ++i) x[static_cast<std::size_t>(i)] = t[i];
  return x;
}

struct Answer { Numbers o, lse, dq, dk, dv; };

// Row by row in double.
Answer reference(const Problem& p) {
  const Case& c = p.c;
  const Numbers q = values(p.q), k = values(p.k), v = values(p.v), dout = values(p.dout);
  const std::size_t d = static_cast<std::size_t>(c.dim), H = static_cast<std::size_t>(c.heads), G = static_cast<std::size_t>(c.groups);
  Answer r{Numbers(q.size(), 0), Numbers(H * static_cast<std::size_t>(p.tokens), -inf), Numbers(q.size(), 0), Numbers(k.size(), 0), Numbers(k.size(), 0)};
  const double scale = p.attributes[0];
  for (std::size_t s = 0; s < c.segments.size(); ++s) {
    const int q0 = static_cast<int>(p.cu_q[static_cast<std::int64_t>(s)]), k0 = static_cast<int>(p.cu_k[static_cast<std::int64_t>(s)]);
    const auto [nq, nk] = c.segments[s];
    for (int i = 0; i < nq; ++i)
      for (std::size_t h = 0; h < H; ++h) {
        const std::size_t at = (static_cast<std::size_t>(q0 + i) * H + h) * d, g = h / (H / G);
        auto key = [&](int j) { return (static_cast<std::size_t>(k0 + j) * G + g) * d; };
        auto seen = [&](int j) { return (!c.causal || j <= i + nk - nq) && (c.window == 0 || i + nk - nq - j < c.window); };
        Numbers w(static_cast<std::size_t>(nk), -inf);
        double top = -inf, mass = 0;
        for (int j = 0; j < nk; ++j) {
          if (!seen(j)) continue;
          double x = 0;
          for (std::size_t e = 0; e < d; ++e) x += q[at + e] * k[key(j) + e];
          w[static_cast<std::size_t>(j)] = x * scale;
          top = std::max(top, x * scale);
        }
        if (top == -inf) continue;
        for (double& x : w) mass += std::exp(x - top);
        r.lse[h * static_cast<std::size_t>(p.tokens) + static_cast<std::size_t>(q0 + i)] = top + std::log(mass);
        for (double& x : w) x = std::exp(x - top) / mass;
        double inner = 0;
        for (int j = 0; j < nk; ++j)
          for (std::size_t e = 0; e < d; ++e) r.o[at + e] += w[static_cast<std::size_t>(j)] * v[key(j) + e];
        for (std::size_t e = 0; e < d; ++e) inner += r.o[at + e] * dout[at + e];
        for (int j = 0; j < nk; ++j) {
          const double weight = w[static_cast<std::size_t>(j)];
          double dp = 0;
          for (std::size_t e = 0; e < d; ++e) dp += dout[at + e] * v[key(j) + e];
          const double ds = weight * (dp - inner) * scale;
          for (std::size_t e = 0; e < d; ++e) {
            r.dq[at + e] += ds * k[key(j) + e];
            r.dk[key(j) + e] += ds * q[at + e];
            r.dv[key(j) + e] += weight * dout[at + e];
          }
        }
      }
  }
  return r;
}

Launch forward(const Problem& p) {
  return {"attention", {p.q, p.k, p.v, p.cu_q, p.cu_k}, {}, {Tensor(p.c.dtype, p.q.shape), Tensor(DType::f32, {p.c.heads, p.tokens})}, p.attributes};
}
Launch backward(const Problem& p, const Tensor& o, const Tensor& lse) {
  return {"attention_backward", {p.q, p.k, p.v, o, lse, p.dout, p.cu_q, p.cu_k}, {}, {Tensor(p.c.dtype, p.q.shape), Tensor(p.c.dtype, p.k.shape), Tensor(p.c.dtype, p.v.shape)}, p.attributes};
}

Tensor encoded(DType t, const Tensor& shape, const Numbers& x) {
  Tensor r(t, shape.shape);
  for (std::int64_t i = 0; i < r.count(); ++i) r.put(i, x[static_cast<std::size_t>(i)]);
  return r;
}

void check_case(const Case& c) {
  const Problem p = problem(c);
  const Answer want = reference(p);
  const bool f32 = c.dtype == DType::f32;
  check(forward(p), {want.o, want.lse}, f32 ? Tolerance{4, 3e-6} : Tolerance{1, 8e-3});  // bf16 weights: half a unit of the largest value
  const Tensor o = encoded(c.dtype, p.q, want.o), lse = encoded(DType::f32, Tensor(DType::f32, {c.heads, p.tokens}), want.lse);
  check(backward(p, o, lse), {want.dq, want.dk, want.dv}, f32 ? Tolerance{16, 2e-5} : Tolerance{2, 2e-2});
}

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_source()); }

void fixed_cases() {
  check_case({.segments = {{1, 1}}});
  check_case({.heads = 3, .groups = 3, .dim = 64, .segments = {{200, 200}}});
  check_case({.heads = 8, .groups = 2, .dim = 8, .segments = {{70, 70}, {0, 0}, {3, 3}}, .before = 2, .after = 5});
  check_case({.heads = 4, .groups = 4, .dim = 10, .segments = {{33, 140}, {1, 257}}});
  check_case({.heads = 12, .groups = 4, .dim = 80, .segments = {{1, 300}, {1, 1}, {1, 64}}});  // decoding
  check_case({.heads = 2, .groups = 2, .dim = 32, .segments = {{150, 150}}, .window = 40});
  check_case({.heads = 2, .groups = 1, .dim = 16, .segments = {{90, 130}}, .causal = false, .window = 33});
  check_case({.heads = 2, .groups = 1, .dim = 16, .segments = {{90, 130}}, .causal = false});
  check_case({.heads = 2, .groups = 2, .dim = 16, .segments = {{100, 30}, {5, 0}, {0, 9}}, .after = 1});  // more queries than keys: the first see nothing
  check_case({.heads = 1, .groups = 1, .dim = 256, .segments = {{65, 65}}});
  check_case({.heads = 1, .groups = 1, .dim = 1, .segments = {{17, 17}}});
  check_case({.heads = 2, .groups = 1, .dim = 16, .segments = {{40, 40}}, .scale = -0.3});
  check_case({.heads = 4, .groups = 2, .dim = 24, .segments = {{400, 400}, {200, 230}}});  // 1 to 4 threads take spans of different length
  check_case({.heads = 8, .groups = 1, .dim = 128, .segments = {{1, 130}, {1, 3}}, .window = 50});
  check_case({.dtype = DType::bf16, .heads = 4, .groups = 2, .dim = 64, .segments = {{100, 100}, {28, 28}}});
  check_case({.dtype = DType::bf16, .heads = 2, .groups = 1, .dim = 10, .segments = {{1, 90}, {30, 30}}, .window = 20});
}

void random_cases(int count) {
  const int dims[] = {1, 3, 8, 10, 16, 17, 24, 40, 64, 72, 96, 128};
  for (int n = 0; n < count; ++n) {
    Case c;
    c.dtype = pick(0, 3) == 0 ? DType::bf16 : DType::f32;
    c.groups = pick(1, 3);
    c.heads = c.groups * pick(1, 4);
    c.dim = dims[pick(0, 11)];
    for (int s = pick(1, 4); s > 0; --s) {
      const int queries = pick(0, 3) == 0 ? pick(0, 2) : pick(1, 150);
      c.segments.emplace_back(queries, pick(0, 2) == 0 ? pick(0, 180) : queries);
    }
    c.causal = pick(0, 3) != 0;
    c.window = pick(0, 2) == 0 ? pick(1, 100) : 0;
    c.before = pick(0, 2);
    c.after = pick(0, 3);
    check_case(c);
  }
}

// Copies `rows` rows of x from row `from`.
Tensor slice(const Tensor& x, std::int64_t from, std::int64_t rows) {
  std::vector<std::int64_t> shape = x.shape;
  shape[0] = rows;
  Tensor r(x.dtype, shape);
  if (rows > 0) std::memcpy(r.data.get(), x.at(from * (x.count() / x.shape[0])), r.bytes());
  return r;
}

// A segment alone gives the bytes it gives inside a batch.
void alone() {
  const Case c{.heads = 4, .groups = 2, .dim = 40, .segments = {{5, 5}, {130, 150}, {77, 77}, {1, 100}}, .before = 3};
  const Problem p = problem(c);
  for (const Isa& isa : isas()) {
    const Tensors all = run(isa, forward(p), 2);
    const Tensors gradients = run(isa, backward(p, all[0], all[1]), 4);
    for (std::size_t s = 0; s < c.segments.size(); ++s) {
      const auto [nq, nk] = c.segments[s];
      const std::int64_t q0 = static_cast<std::int64_t>(p.cu_q[static_cast<std::int64_t>(s)]), k0 = static_cast<std::int64_t>(p.cu_k[static_cast<std::int64_t>(s)]);
      Problem one = problem({.heads = c.heads, .groups = c.groups, .dim = c.dim, .segments = {{nq, nk}}});
      one.q = slice(p.q, q0, nq); one.k = slice(p.k, k0, nk); one.v = slice(p.v, k0, nk); one.dout = slice(p.dout, q0, nq);
      const Tensors mine = run(isa, forward(one));
      const Tensors grads = run(isa, backward(one, mine[0], mine[1]));
      const std::string what = std::string(isa.name) + " segment " + std::to_string(s) + " alone: ";
      expect(mine[0].same(slice(all[0], q0, nq)), what + "o");
      expect(grads[0].same(slice(gradients[0], q0, nq)), what + "dq");
      expect(grads[1].same(slice(gradients[1], k0, nk)), what + "dk");
      expect(grads[2].same(slice(gradients[2], k0, nk)), what + "dv");
      bool same = true;
      for (std::int64_t h = 0; h < c.heads; ++h)
        for (std::int64_t i = 0; i < nq; ++i) same = same && mine[1][h * nq + i] == all[1][h * p.tokens + q0 + i];
      expect(same, what + "lse");
    }
  }
}

void extremes() {
  // Scores of thousands neither overflow nor lose their winner; NaN is not swallowed.
  Problem p = problem({.heads = 1, .groups = 1, .dim = 16, .segments = {{70, 70}}, .scale = 300});
  const Answer want = reference(p);
  for (const Isa& isa : isas()) {
    const Tensors got = run(isa, forward(p));
    near(std::string(isa.name) + " steep", got[0], want.o, 4, 5e-3);
  }
  p.k.put(16 * 20 + 3, std::nan(""));
  for (const Isa& isa : isas()) {
    const Tensors got = run(isa, forward(p));
    expect(std::isnan(got[0][69 * 16]) && std::isnan(got[1][69]) && !std::isnan(got[0][0]), std::string(isa.name) + " NaN in a key reaches the rows that see it");
  }
}

void misuse() {
  const Problem p = problem({.heads = 4, .groups = 2, .dim = 8, .segments = {{5, 5}, {6, 6}}});
  for (const Isa& isa : isas()) {
    Launch l = forward(p);
    l.ins[3] = numbers(DType::i32, {0, 5, 12});
    expect(thrown(isa, l) == "BadSegments", "cu_q past the end of q");
    l.ins[3] = numbers(DType::i32, {0, 6, 5});
    expect(thrown(isa, l) == "BadSegments", "a segment of negative length");
    l = forward(p);
    l.attributes[3] = 5;
    expect(thrown(isa, l) == "BadSegments", "a segment longer than max_q");
    l = forward(p);
    l.ins[1] = Tensor(DType::f32, {11, 3, 8});
    expect(thrown(isa, l) == "BadShape", "4 heads on 3 groups");
    l = forward(p);
    l.ins[2] = Tensor(DType::f32, {10, 2, 8});
    expect(thrown(isa, l) == "BadShape", "v shorter than k");
  }
}

#ifndef LOMO_PORTABLE_ONLY
// One thread is timed by its own clock, so that a busy machine disturbs it little; several by the wall's.
double now(int threads) {
  timespec t;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
// Best seconds of several runs without copies.
double seconds(const Isa& isa, const Launch& l, int threads, int repeats) {
  const Kernel* k = find(isa, l);
  std::vector<Operand> operands;
  for (const Tensors* list : {&l.ins, &l.inouts, &l.outs})
    for (auto& t : *list) operands.push_back(t.operand());
  Call call;
  call.operands = operands.data();
  call.ins = static_cast<std::int32_t>(l.ins.size()); call.outs = static_cast<std::int32_t>(l.outs.size());
  call.attributes = l.attributes.data();
  call.threads = threads;
  call.workspace_bytes = k->workspace(call);
  std::unique_ptr<char[]> space(new char[call.workspace_bytes + 64]);
  call.workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(space.get()) + 63) / 64 * 64);
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const double start = now(threads);
    k->run(call);
    best = std::min(best, now(threads) - start);
  }
  return best;
}

void speed() {
  double peak = 0;
  for (int i = 0; i < 5; ++i) peak = std::max(peak, fma_peak());
  std::printf("one thread's f32 fma peak (avx512): %.0f GFLOP/s; percentages are of it, over unmasked work, backward counted as five products\n", peak * 1e-9);
  struct Shape { int sequence, batch; std::int64_t heads, groups, dim; DType dtype; };
  const DType f = DType::f32, b = DType::bf16;
  for (const Shape& s : {Shape{256, 4, 12, 12, 64, f}, {1024, 1, 12, 12, 64, f}, {256, 4, 12, 12, 64, b}, {1024, 1, 12, 12, 64, b}, {1024, 1, 32, 8, 128, f}, {256, 4, 8, 4, 8, f}, {4096, 1, 4, 4, 64, f}}) {
    Case c{.dtype = s.dtype, .heads = s.heads, .groups = s.groups, .dim = s.dim, .segments = {}};
    for (int i = 0; i < s.batch; ++i) c.segments.emplace_back(s.sequence, s.sequence);
    const Problem p = problem(c);
    const double pairs = 0.5 * s.sequence * (s.sequence + 1.0) * static_cast<double>(s.batch * s.heads);
    const double flops = 4 * pairs * static_cast<double>(s.dim);
    for (const Isa& isa : isas()) {
      if (s.sequence > 1024 && std::strncmp(isa.name, "avx512", 6) != 0) continue;
      const Tensors out = run(isa, forward(p));
      const double f1 = seconds(isa, forward(p), 1, 9), f2 = seconds(isa, forward(p), 2, 5);
      const double b1 = seconds(isa, backward(p, out[0], out[1]), 1, 7), b2 = seconds(isa, backward(p, out[0], out[1]), 2, 5);
      std::printf("%-8s %s %d x %-4d heads %lld/%lld dim %-3lld forward %7.3f ms %4.1f %% (2 threads %7.3f ms) backward %7.3f ms %4.1f %% (2 threads %7.3f ms)\n", isa.name,
                  s.dtype == f ? "f32 " : "bf16", s.batch, s.sequence, static_cast<long long>(s.heads), static_cast<long long>(s.groups), static_cast<long long>(s.dim), f1 * 1e3,
                  100 * flops / f1 / peak, f2 * 1e3, b1 * 1e3, 250 * flops / b1 / peak, b2 * 1e3);
    }
  }
  for (const DType t : {f, b}) {
    Case c{.dtype = t, .heads = 12, .groups = 12, .dim = 64, .segments = {{1, 1024}, {1, 1024}, {1, 1024}, {1, 1024}}};
    const Problem p = problem(c);
    for (const Isa& isa : isas()) {
      const double s1 = seconds(isa, forward(p), 1, 9), s2 = seconds(isa, forward(p), 2, 9);
      std::printf("%-8s %s decoding 4 x 1 query, 1024 keys, heads 12, dim 64: %6.3f ms %5.1f GB/s (2 threads %6.3f ms)\n", isa.name, t == f ? "f32 " : "bf16", s1 * 1e3,
                  static_cast<double>(p.k.bytes() + p.v.bytes()) / s1 * 1e-9, s2 * 1e3);
    }
  }
}
#endif

}  // namespace
}  // namespace test

int main(int argc, char** argv) {
#ifndef LOMO_PORTABLE_ONLY
  if (argc > 1 && std::strcmp(argv[1], "speed") == 0) { test::speed(); return 0; }
#endif
  test::fixed_cases();
  test::alone();
  test::extremes();
  test::misuse();
  test::random_cases(argc > 1 ? std::atoi(argv[1]) : 30);
  std::printf("attention: %d passed, %d failed, 0 skipped on", test::passes(), test::failures());
  for (const auto& isa : test::isas()) std::printf(" %s", isa.name);
  std::printf("\n");
  return test::failures() == 0 ? 0 : 1;
}
