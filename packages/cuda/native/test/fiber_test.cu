// The tester tested: kernels that are right pass under every schedule, planted mistakes are caught, a fiber switch is cheap.
#define LOMO_DEVICE
#define LOMO_FIBER
#include "gpu/kernel.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace {

using namespace lomo::gpu;
using lomo::fiber::Failure;

int failures = 0, passed = 0;
void check(bool ok, const std::string& what) {
  ++(ok ? passed : failures);
  if (!ok) std::printf("FAILED %s\n", what.c_str());
}

struct Args {
  const float* x;
  float* y;
  int n;
  int mistake;
};

// Sums 256 numbers through shared memory in log steps. mistake 1: no barrier between a step and the next.
void tree(const Args& a) {
  LOMO_SHARED(float, part, 256);
  const unsigned t = threadIdx.x;
  part[t] = a.x[blockIdx.x * 256 + t];
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    if (a.mistake != 1) __syncthreads();
  }
  if (t == 0) a.y[blockIdx.x] = part[0];
}
LOMO_KERNEL(test_tree, 256, Args, tree)

// Reverses tiles of 256 one after another in one buffer. mistake 2: the next tile is written without waiting for its readers.
void reverse(const Args& a) {
  LOMO_SHARED(float, tile, 256);
  const unsigned t = threadIdx.x;
  for (int i = 0; i < a.n; ++i) {
    tile[t] = a.x[i * 256 + t];
    __syncthreads();
    a.y[i * 256 + t] = tile[255 - t];
    if (a.mistake != 2) __syncthreads();
  }
}
LOMO_KERNEL(test_reverse, 256, Args, reverse)

// Copies through shared memory with cp.async. mistake 3: nobody waits; mistake 4: waits, but not for the others.
void staged(const Args& a) {
  LOMO_SHARED(float4, tile, 64);
  const unsigned t = threadIdx.x;
  copy16_async(&tile[t], a.x + 4 * t);
  commit_copies();
  if (a.mistake != 3) wait_copies<0>();
  if (a.mistake != 4) __syncthreads();
  const float4 v = tile[63 - t];
  a.y[4 * t] = v.x, a.y[4 * t + 1] = v.y, a.y[4 * t + 2] = v.z, a.y[4 * t + 3] = v.w;
  if (a.mistake == 3) wait_copies<0>();
}
LOMO_KERNEL(test_staged, 64, Args, staged)

void divergent(const Args& a) {
  if (a.mistake == 5 && threadIdx.x == 7) return;
  if (a.mistake == 6 && threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  if (a.mistake == 7 && threadIdx.x != 3) __syncwarp();
  if (a.mistake == 8) copy16_async(a.y, a.x);
}
LOMO_KERNEL(test_divergent, 64, Args, divergent)

void lanes(const Args& a) {
  const unsigned l = threadIdx.x;
  float v = a.x[l];
  for (int m = 16; m > 0; m /= 2) v += __shfl_xor_sync(whole_warp, v, m);
  a.y[l] = v;
  a.y[32 + l] = __shfl_down_sync(whole_warp, a.x[l], 1);
  a.y[64 + l] = __shfl_up_sync(whole_warp, a.x[l], 2);
  a.y[96 + l] = __shfl_sync(l < 16 ? 0xffffu : 0xffff0000u, a.x[l], l < 16 ? 3 : 20);
  a.y[128 + l] = static_cast<float>(__popc(__ballot_sync(whole_warp, l % 3 == 0)));
}
LOMO_KERNEL(test_lanes, 32, Args, lanes)

// C [16, 8] = A [16, 16] B [16, 8] in bf16 through ldmatrix and mma; B is read transposed.
void product(const Args& a) {
  LOMO_SHARED(uint4, store_a, 32);
  LOMO_SHARED(uint4, store_b, 32);
  auto* sa = reinterpret_cast<u16*>(store_a);
  auto* sb = reinterpret_cast<u16*>(store_b);
  const unsigned l = threadIdx.x;
  for (unsigned i = l; i < 256; i += 32) sa[i] = static_cast<u16>(__float_as_uint(a.x[i]) >> 16);
  for (unsigned i = l; i < 256; i += 32) sb[i] = i < 128 ? static_cast<u16>(__float_as_uint(a.x[256 + i]) >> 16) : u16{0};
  __syncthreads();
  unsigned ra[4], rb[4];
  load_matrices<false>(ra, sa + (l % 16) * 16 + l / 16 * 8);
  load_matrices<true>(rb, sb + (l % 16) * 8);
  float d[4] = {};
  const unsigned b[2] = {rb[0], rb[1]};
  multiply_bf16(d, ra, b);
  for (unsigned c = 0; c < 4; ++c) a.y[(l / 4 + c / 2 * 8) * 8 + l % 4 * 2 + c % 2] = d[c];
}
LOMO_KERNEL(test_product, 32, Args, product)

void product_tf32(const Args& a) {
  const unsigned l = threadIdx.x, g = l / 4, t = l % 4;
  const float *A = a.x, *B = a.x + 128;  // [16, 8], [8, 8]
  const unsigned ra[4] = {__float_as_uint(A[g * 8 + t]), __float_as_uint(A[(g + 8) * 8 + t]), __float_as_uint(A[g * 8 + t + 4]), __float_as_uint(A[(g + 8) * 8 + t + 4])};
  const unsigned rb[2] = {__float_as_uint(B[t * 8 + g]), __float_as_uint(B[(t + 4) * 8 + g])};
  float d[4] = {};
  multiply_tf32(d, ra, rb);
  for (unsigned c = 0; c < 4; ++c) a.y[(g + c / 2 * 8) * 8 + t * 2 + c % 2] = d[c];
}
LOMO_KERNEL(test_product_tf32, 32, Args, product_tf32)

void ping(const Args& a) {
  float v = a.x[threadIdx.x];
  for (int i = 0; i < a.n; ++i) v = __shfl_xor_sync(whole_warp, v, 1);
  a.y[threadIdx.x] = v;
}
LOMO_KERNEL(test_ping, 32, Args, ping)

struct Case {
  const char* kernel;
  unsigned grid, block;
  std::size_t in, out;
  int n;
};

// The result under a schedule, or the failure's text in `why`.
std::vector<float> result(const Case& c, int mistake, std::uint64_t seed, std::string* why = nullptr) {
  std::vector<float> x(c.in), y(c.out, -1.0f);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 37 % 61) - 32) / 8;
  const Args args{x.data(), y.data(), c.n, mistake};
  try {
    lomo::fiber::run({lomo::fiber::find(c.kernel), &args, {c.grid, 1, 1}, {c.block, 1, 1}, 0}, {seed});
  } catch (const Failure& f) {
    if (why == nullptr) std::printf("unexpected: %s\n", f.what());
    else *why = f.what();
    return {};
  }
  return y;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr std::uint64_t seeds[] = {0, 1, 2, 3, 4, 5};

void right(const Case& c, const std::function<float(std::size_t, const std::vector<float>&)>& want) {
  std::vector<float> x(c.in), y(c.out);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 37 % 61) - 32) / 8;
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = want(i, x);
  for (const std::uint64_t seed : seeds) check(same(result(c, 0, seed), y), std::string(c.kernel) + " under seed " + std::to_string(seed));
}

// A planted mistake shows under some schedule: another result, poison, or a failure that says `text`.
void caught(const Case& c, int mistake, const char* text) {
  const auto good = result(c, 0, 0);
  int seen = 0;
  for (const std::uint64_t seed : seeds) {
    std::string why;
    const auto bad = result(c, mistake, seed, &why);
    if (*text == 0 ? !same(bad, good) : why.find(text) != std::string::npos) ++seen;
    else if (!why.empty()) std::printf("  said: %s\n", why.c_str());
  }
  std::printf("  mistake %d of %s: caught under %d of %zu schedules\n", mistake, c.kernel, seen, std::size(seeds));
  check(seen > 0, std::string(c.kernel) + ": mistake " + std::to_string(mistake) + " went unseen");
}

}  // namespace

int main() {
  const Case trees{"test_tree", 3, 256, 768, 3, 0}, reverses{"test_reverse", 1, 256, 1024, 1024, 4}, copies{"test_staged", 1, 64, 256, 256, 0}, block{"test_divergent", 1, 64, 4, 4, 0};
  right(trees, [](std::size_t i, const auto& x) {
    float sum = 0;
    for (std::size_t j = 0; j < 256; ++j) sum += x[i * 256 + j];
    return sum;  // eighths: exact in any order
  });
  right(reverses, [](std::size_t i, const auto& x) { return x[i / 256 * 256 + 255 - i % 256]; });
  right(copies, [](std::size_t i, const auto& x) { return x[252 - i / 4 * 4 + i % 4]; });
  right({"test_lanes", 1, 32, 32, 160, 0}, [](std::size_t i, const auto& x) {
    float sum = 0;
    for (const float v : x) sum += v;
    const std::size_t l = i % 32;
    return i < 32 ? sum : i < 64 ? x[l == 31 ? 31 : l + 1] : i < 96 ? x[l < 2 ? l : l - 2] : i < 128 ? x[l < 16 ? 3 : 20] : 11.0f;
  });
  right({"test_product", 1, 32, 384, 128, 0}, [](std::size_t i, const auto& x) {
    float sum = 0;
    for (std::size_t k = 0; k < 16; ++k) sum += x[i / 8 * 16 + k] * x[256 + k * 8 + i % 8];
    return sum;
  });
  right({"test_product_tf32", 1, 32, 192, 128, 0}, [](std::size_t i, const auto& x) {
    float sum = 0;
    for (std::size_t k = 0; k < 8; ++k) sum += x[i / 8 * 8 + k] * x[128 + k * 8 + i % 8];
    return sum;
  });
  caught(trees, 1, "");
  caught(reverses, 2, "");
  caught(copies, 3, "");
  caught(copies, 4, "");
  caught(block, 5, "of its block wait at");
  caught(block, 6, "other than");
  caught(block, 7, "never come");
  caught(block, 8, "asynchronous copies");

  const Case pings{"test_ping", 1, 32, 32, 32, 20000};
  const auto start = std::chrono::steady_clock::now();
  result(pings, 0, 0);
  const double ns = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / (32.0 * 20000);
  std::printf("  a thread's part in a shuffle, switches included: %.0f ns\n", ns);
  if (std::getenv("LOMO_TEST_SPEED") != nullptr) check(ns < 1000, "a switch under a microsecond");
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failures);
  return failures == 0 ? 0 : 1;
}
