// attention and attention_backward on fibers against a plain float64 definition, through their own host code: closeness as in
// @lomo/tensor's conformance, equal bits under every schedule, packing invariance, rows outside segments, misuse.
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "addon/launch.h"
#include "fiber/fiber.h"
#include "test/attention_problem.h"

namespace lomo {

// The launches of this test: fibers at once, under the schedule that is set.
namespace {
std::uint64_t schedule = 0;
std::int32_t fault[8];
}  // namespace

void start(const Call&, const char* kernel, const Grid& grid, const void* args) {
  if (grid.blocks == 0 || grid.rows == 0) return;
  const fiber::Entry* entry = fiber::find(kernel);
  if (entry == nullptr) throw Error("MissingKernel", kernel);
  if (grid.shared > 99 * 1024) throw Error("TooMuchShared", kernel);
  fiber::run({entry, args, {static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.rows), 1}, {grid.threads, 1, 1}, grid.shared}, {schedule});
}
std::int32_t* fault_cell(const Call&) { return fault; }

extern const Kernel kernels_attention[];
extern const Kernel kernels_attention_backward[];

}  // namespace lomo

namespace {

// What a launch left in its outputs.
std::vector<Tensor> run(const Kernel& kernel, std::vector<Tensor*> ins, std::vector<Tensor> outs, const Problem& p, std::uint64_t seed) {
  std::vector<Operand> operands;
  for (Tensor* t : ins) operands.push_back(t->operand());
  for (Tensor& t : outs) operands.push_back(t.operand());
  const double attributes[] = {p.scale, p.c.causal ? 1.0 : 0.0, static_cast<double>(p.c.window), static_cast<double>(p.max_q), static_cast<double>(p.max_k)};
  Call call;
  call.operands = operands.data();
  call.ins = static_cast<std::int32_t>(ins.size());
  call.outs = static_cast<std::int32_t>(outs.size());
  call.attributes = attributes;
  std::vector<float> workspace(kernel.workspace == nullptr ? 0 : kernel.workspace(call) / 4, std::numeric_limits<float>::quiet_NaN());
  call.workspace = workspace.data();
  call.workspace_bytes = workspace.size() * 4;
  schedule = seed;
  std::memset(fault, 0, sizeof fault);
  kernel.run(call);
  return outs;
}
std::vector<Tensor> forward(Problem& p, std::uint64_t seed) {
  return run(kernels_attention[0], {&p.q, &p.k, &p.v, &p.cu_q, &p.cu_k}, {empty(p.c.dtype, p.q.shape, p.c.skew), empty(DType::f32, {p.c.heads, p.tokens})}, p, seed);
}
std::vector<Tensor> backward(Problem& p, std::uint64_t seed) {
  return run(kernels_attention_backward[0], {&p.q, &p.k, &p.v, &p.o, &p.lse, &p.dout, &p.cu_q, &p.cu_k},
             {empty(p.c.dtype, p.q.shape, p.c.skew), empty(p.c.dtype, p.k.shape, p.c.skew), empty(p.c.dtype, p.k.shape, p.c.skew)}, p, seed);
}

bool same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].bytes != b[i].bytes) return false;
  return true;
}

bool brief = false;  // one schedule only
double worst[2][2];  // [dtype][forward, backward]: of all cases, the largest share of a bar

// One case: close under schedule 0, the same bits under the others.
void prove(const Case& c, const std::vector<std::uint64_t>& seeds = {1, 7}, unsigned data = 1) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Case one = c;
    one.dtype = dtype;
    Problem p = make(one, true, data);
    const int which = dtype == DType::bf16 ? 1 : 0;
    const auto y = forward(p, 0);
    const double work = flops(p), length = length_of(work, p.q.count());
    worst[which][0] = std::max({worst[which][0], compare("o: " + one.text(), y[0], p.want_o, length, largest(p.v.numbers())), compare("lse: " + one.text(), y[1], p.want_lse, length, 0)});
    const auto dx = backward(p, 0);
    const double long_length = length_of(2.5 * work, std::max(p.q.count(), p.k.count())), rounded = 3 * std::max({largest(p.q.numbers()), largest(p.k.numbers()), largest(p.dout.numbers())});
    const double written = std::max({largest(p.dq), largest(p.dk), largest(p.dv)});
    const char* names[] = {"dq: ", "dk: ", "dv: "};
    const Numbers* wants[] = {&p.dq, &p.dk, &p.dv};
    for (int i = 0; i < 3; ++i) worst[which][1] = std::max(worst[which][1], compare(names[i] + one.text(), dx[static_cast<std::size_t>(i)], *wants[i], long_length, rounded, written));
    for (const std::uint64_t seed : brief ? std::vector<std::uint64_t>{} : seeds) {
      check(same(forward(p, seed), y), "forward bits under schedule " + std::to_string(seed) + ": " + one.text());
      check(same(backward(p, seed), dx), "backward bits under schedule " + std::to_string(seed) + ": " + one.text());
    }
  }
}

// Operands that are not aligned take another way into shared memory, to the same bits.
void aligned(Case c) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    c.dtype = dtype;
    Problem ragged = make(c, true), even = ragged;
    for (Tensor* t : {&even.q, &even.k, &even.v, &even.dout, &even.o}) {
      t->bytes.erase(t->bytes.begin(), t->bytes.begin() + static_cast<std::ptrdiff_t>(t->skew * size_of(dtype)));
      t->skew = 0;
    }
    even.c.skew = 0;
    bool equal = true;
    for (const auto& [a, b] : {std::pair{forward(ragged, 0), forward(even, 0)}, std::pair{backward(ragged, 0), backward(even, 0)}})
      for (std::size_t i = 0; i < a.size(); ++i) {
        const std::size_t from = a[i].skew * size_of(a[i].dtype);
        equal = equal && std::memcmp(a[i].bytes.data() + from, b[i].bytes.data(), b[i].bytes.size()) == 0;
      }
    check(equal, "the bits of aligned operands: " + c.text());
  }
}

// A segment's results are those it has alone.
void packing(DType dtype) {
  Case packed;
  packed.dtype = dtype;
  packed.heads = 4, packed.groups = 2, packed.d = 16;
  packed.segments = {{5, 5}, {70, 81}, {0, 0}, {33, 33}};
  Problem p = make(packed, false);
  const auto all = forward(p, 0), all_dx = backward(p, 0);
  for (std::size_t s = 0; s < packed.segments.size(); ++s) {
    Case single = packed;
    single.segments = {packed.segments[s]};
    Problem alone = make(single, false);
    const auto q0 = static_cast<std::size_t>(p.cu_q.at(s)), k0 = static_cast<std::size_t>(p.cu_k.at(s));
    const auto take = [](Tensor& to, const Tensor& from, std::size_t row) {
      const std::size_t stride = to.count() / static_cast<std::size_t>(std::max<std::int64_t>(1, to.shape[0]));
      for (std::size_t i = 0; i < to.count(); ++i) to.set(i, from.at(row * stride + i));
    };
    take(alone.q, p.q, q0), take(alone.o, p.o, q0), take(alone.dout, p.dout, q0), take(alone.k, p.k, k0), take(alone.v, p.v, k0);
    for (std::int64_t h = 0; h < packed.heads; ++h)
      for (std::int64_t i = 0; i < alone.tokens; ++i) alone.lse.set(static_cast<std::size_t>(h * alone.tokens + i), p.lse.at(static_cast<std::size_t>(h * p.tokens + i) + q0));
    const auto y = forward(alone, 0), dx = backward(alone, 0);
    const auto equal = [](const Tensor& part, const Tensor& whole, std::size_t row) {
      const std::size_t bytes = part.bytes.size(), stride = bytes / static_cast<std::size_t>(std::max<std::int64_t>(1, part.shape[0]));
      return bytes == 0 || std::memcmp(part.bytes.data(), whole.bytes.data() + row * stride, bytes) == 0;
    };
    check(equal(y[0], all[0], q0) && equal(dx[0], all_dx[0], q0) && equal(dx[1], all_dx[1], k0) && equal(dx[2], all_dx[2], k0), std::string("packed as alone: ") + name_of(dtype) + ", segment " + std::to_string(s));
  }
}

void misuse() {
  Case c;
  c.segments = {{4, 4}, {3, 5}};
  const auto refused = [&](const std::function<void(Problem&)>& spoil) {
    Problem p = make(c, false);
    spoil(p);
    try {
      forward(p, 0);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  check(refused([](Problem& p) { p.q.shape = {p.tokens, 128}; }).find("dimensions") != std::string::npos, "q of two dimensions is refused");
  check(refused([](Problem& p) { p.k = empty(DType::f32, {p.keys, 1, 32}); }).find("head_dim of q is 64, of k 32") != std::string::npos, "two head sizes are refused");
  check(refused([](Problem& p) { p.k = empty(DType::f32, {p.keys, 3, 64}), p.v = p.k; }).find("2 heads do not divide into 3") != std::string::npos, "heads that do not divide are refused");
  check(refused([](Problem& p) { p.q = empty(DType::f32, {1, 2, 257}), p.k = empty(DType::f32, {1, 1, 257}); }).find("outside 1..256") != std::string::npos, "a head_dim of 257 is refused");
  check(refused([](Problem& p) { p.cu_k = empty(DType::i32, {2}); }).find("segments + 1") != std::string::npos, "segment starts of two lengths are refused");
  const auto reported = [&](const std::function<void(Problem&)>& spoil, int segment) {
    for (const bool back : {false, true}) {
      Problem p = make(c, false);
      spoil(p);
      if (back) backward(p, 0);
      else forward(p, 0);
      check(fault[0] == 4 && fault[1] == segment, "bad segments are reported, not followed out of bounds");
    }
  };
  reported([](Problem& p) { p.cu_q.set(2, 1000); }, 1);
  reported([](Problem& p) { p.cu_k.set(0, -7); }, 0);
  reported([](Problem& p) { p.cu_q.set(1, 9); }, 0);
  reported([](Problem& p) { p.max_k = 4; }, 1);
  Problem good = make(c, false);
  forward(good, 0);
  check(fault[0] == 0, "good segments raise no fault");
}

void edges() {
  Case c;
  c.segments = {{0, 0}, {1, 1}, {63, 63}, {64, 64}, {65, 65}};
  prove(c);
  c.causal = false;
  c.d = 16;
  prove(c);
  c = {};
  c.d = 32, c.window = 7, c.segments = {{65, 65}, {40, 90}};
  prove(c);
  c.window = 33, c.causal = false;
  prove(c);
  // A query without keys, more queries than keys, keys without queries.
  c = {};
  c.d = 8, c.before = 3, c.after = 2, c.segments = {{5, 0}, {40, 3}, {0, 4}, {2, 2}};
  prove(c);
  c.segments = {};
  prove(c);
  c.before = c.after = 0;
  prove(c);
  // Decoding: few rows over a long cache.
  c = {};
  c.heads = 8, c.groups = 2, c.segments = {{1, 300}, {3, 130}};
  prove(c);
  // More segments than a warp has lanes.
  c = {};
  c.d = 10, c.segments.assign(70, {1, 2});
  prove(c, {1});
  // Scores far apart, of either sign, and none at all.
  c = {};
  c.d = 16, c.segments = {{40, 40}}, c.scale = 8;
  const auto close = [&](const char* what) {
    Problem p = make(c, false);
    compare(what, forward(p, 0)[0], p.want_o, 200, 0);
  };
  close("o of scores far apart");
  c.scale = 1e-300;
  close("o of scores that are all the same");
  c.scale = -0.5;
  prove(c);
  c.scale = 1e-30;
  prove(c);
}

void dims_and_groups() {
  for (const int d : {1, 8, 10, 16, 33, 64, 72, 96, 128, 160, 256}) {
    Case c;
    c.d = d, c.segments = {{21, 21}, {17, 40}};
    prove(c, {1});
    if (d % 8 != 0) continue;
    c.skew = 1;
    prove(c, {});
    aligned(c);
  }
  for (int per = 1; per <= 8; ++per) {
    Case c;
    c.d = 8, c.groups = 2, c.heads = 2 * per, c.segments = {{19, 19}}, c.window = per == 5 ? 4 : 0;
    prove(c, {1});
  }
  // Several blocks of rows and of keys at every width.
  for (const int d : {64, 128, 256}) {
    Case c;
    c.d = d, c.heads = 1, c.segments = {{135, 140}};
    prove(c, {5});
  }
}

void soak(int count) {
  std::mt19937 random(42);
  const auto pick = [&](std::vector<int> of) { return of[random() % of.size()]; };
  for (int i = 0; i < count; ++i) {
    Case c;
    c.groups = pick({1, 2});
    c.heads = c.groups * pick({1, 2, 3, 7});
    c.d = pick({1, 8, 10, 16, 33, 64, 80, 128});
    const int extra = pick({0, 0, 3, 60});
    for (int s = pick({1, 2, 3}); s > 0; --s) {
      const int n = pick({0, 1, 5, 17, 40, 66});
      c.segments.push_back({n, n + extra});
    }
    c.causal = pick({1, 1, 0}) == 1;
    c.window = pick({0, 0, 7, 50});
    c.before = pick({0, 2});
    c.after = pick({0, 2});
    c.skew = static_cast<std::size_t>(pick({0, 0, 1}));
    prove(c, {static_cast<std::uint64_t>(i)}, static_cast<unsigned>(i));
  }
}

}  // namespace

// attention_test [random cases] [brief]
int main(int argc, char** argv) {
  brief = argc > 2;
  try {
    edges();
    if (!brief) dims_and_groups();
    packing(DType::f32);
    packing(DType::bf16);
    misuse();
    soak(argc > 1 ? std::atoi(argv[1]) : 12);
  } catch (const std::exception& e) {
    check(false, e.what());
  }
  std::printf("  largest error as a share of its bar: forward f32 %.3f, bf16 %.3f; backward f32 %.3f, bf16 %.3f\n", worst[0][0], worst[1][0], worst[0][1], worst[1][1]);
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failures);
  return failures == 0 ? 0 : 1;
}
