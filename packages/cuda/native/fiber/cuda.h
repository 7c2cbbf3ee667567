// Test only: the CUDA words that our kernels use, on fibers. Included by gpu/kernel.h where a .cu file is compiled for the host.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>

#include "fiber/fiber.h"

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define threadIdx (::lomo::fiber::thread_index())
#define blockIdx (::lomo::fiber::block_index())
#define blockDim (::lomo::fiber::block_size())
#define gridDim (::lomo::fiber::grid_size())

// A declaration inside a kernel: `name` is a reference to an array of this block.
#define LOMO_SHARED(type, name, count)                  \
  static const char name##_declaration = 0;             \
  auto& name = *static_cast<type(*)[count]>(::lomo::fiber::shared(&name##_declaration, sizeof(type) * (count)))
#define LOMO_DYNAMIC_SHARED(type, name) auto* const name = static_cast<type*>(::lomo::fiber::dynamic_shared())

#define LOMO_KERNEL(name, threads, Args, ...) \
  static const ::lomo::fiber::Registered name##_registered(#name, sizeof(Args), threads, [](const void* args) { __VA_ARGS__(*static_cast<const Args*>(args)); });

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

#define LOMO_AT const std::source_location& at = std::source_location::current()

inline void __syncthreads(LOMO_AT) { lomo::fiber::barrier(at); }
inline void __syncwarp(unsigned mask = ~0u, LOMO_AT) { lomo::fiber::done(lomo::fiber::exchange(mask, nullptr, 0, at)); }

namespace lomo::fiber {
// What the lane that `source` names gave.
template <class T, class F> T shuffle(unsigned mask, T value, F source, const std::source_location& at) {
  const Exchange& e = exchange(mask, &value, sizeof value, at);
  const unsigned from = source(lane_index()) % 32;
  if ((e.mask >> from & 1) == 0) fail("shuffles from lane " + std::to_string(from) + ", which gives nothing", at);
  T got;
  std::memcpy(&got, e.lane[from], sizeof got);
  done(e);
  return got;
}
template <class F> unsigned ballot(unsigned mask, bool vote, F, const std::source_location& at) {
  const unsigned char mine = vote ? 1 : 0;
  const Exchange& e = exchange(mask, &mine, 1, at);
  unsigned votes = 0;
  for (unsigned l = 0; l < 32; ++l)
    if ((e.mask >> l & 1) != 0 && e.lane[l][0] != 0) votes |= 1u << l;
  done(e);
  return votes;
}
}  // namespace lomo::fiber

template <class T> T __shfl_sync(unsigned mask, T v, int lane, LOMO_AT) { return lomo::fiber::shuffle(mask, v, [=](unsigned) { return static_cast<unsigned>(lane); }, at); }
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, LOMO_AT) { return lomo::fiber::shuffle(mask, v, [=](unsigned l) { return l ^ static_cast<unsigned>(bits); }, at); }
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, LOMO_AT) { return lomo::fiber::shuffle(mask, v, [=](unsigned l) { return l + by < 32 ? l + by : l; }, at); }
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, LOMO_AT) { return lomo::fiber::shuffle(mask, v, [=](unsigned l) { return l >= by ? l - by : l; }, at); }
inline unsigned __ballot_sync(unsigned mask, bool vote, LOMO_AT) { return lomo::fiber::ballot(mask, vote, 0, at); }
inline bool __any_sync(unsigned mask, bool vote, LOMO_AT) { return lomo::fiber::ballot(mask, vote, 0, at) != 0; }

// Other host threads may run another stream's kernel on the same memory.
template <class T> T atomicAdd(T* p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
template <class T> T atomicOr(T* p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }
inline int atomicExch(int* p, int v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }
inline int atomicCAS(int* p, int expected, int v) {
  __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

inline float __uint_as_float(unsigned u) { return std::bit_cast<float>(u); }
inline unsigned __float_as_uint(float f) { return std::bit_cast<unsigned>(f); }
inline int __float_as_int(float f) { return std::bit_cast<int>(f); }
inline int __popc(unsigned u) { return __builtin_popcount(u); }
inline int __clz(int u) { return u == 0 ? 32 : __builtin_clz(static_cast<unsigned>(u)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32); }
inline float __fdividef(float a, float b) { return a / b; }
inline double cospi(double x) { return std::cos(3.14159265358979323846 * x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
namespace lomo::gpu {
inline float reciprocal(float x) { return 1.0f / x; }
}
using std::fmaf;
using std::isfinite;

namespace lomo::gpu {

// The destination holds poison until wait_copies.
inline void copy16_async(void* to, const void* from, unsigned used = 16) { fiber::copy_async(to, from, 16, used); }
inline void commit_copies() { fiber::commit_copies(); }
template <int groups_left> void wait_copies() { fiber::wait_copies(groups_left); }

template <bool transposed> void load_matrices(unsigned (&r)[4], const void* row, LOMO_AT) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) fiber::fail("ldmatrix reads a row that is not 16-byte aligned", at);
  const auto& e = fiber::exchange(~0u, &row, sizeof row, at);
  const unsigned lane = fiber::lane_index();
  for (unsigned i = 0; i < 4; ++i) {
    unsigned short pair[2];
    for (unsigned k = 0; k < 2; ++k) {
      const unsigned y = transposed ? lane % 4 * 2 + k : lane / 4, x = transposed ? lane / 4 : lane % 4 * 2 + k;
      const void* start;
      std::memcpy(&start, e.lane[8 * i + y], sizeof start);
      std::memcpy(&pair[k], static_cast<const char*>(start) + 2 * x, 2);
    }
    std::memcpy(&r[i], pair, 4);
  }
  fiber::done(e);
}

inline float bf16_of(unsigned pair, unsigned half) { return std::bit_cast<float>((pair >> 16 * half & 0xffffu) << 16); }
inline float f16_of(unsigned pair, unsigned half) {
  const unsigned h = pair >> 16 * half & 0xffffu, exponent = h >> 10 & 31, fraction = h & 1023;
  const float size = exponent == 31 ? (fraction != 0 ? NAN : INFINITY) : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24) : std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25);
  return (h & 0x8000u) != 0 ? -size : size;
}

struct Fragments {
  unsigned a[4], b[2];
};
// d += A B with A [16, 8 per] of the lanes' `a` and B [8 per, 8] of their `b`, `per` elements a register. Whoever reads first multiplies for
// all.
template <int per, class F> void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], F value, const std::source_location& at) {
  const Fragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const auto& e = fiber::exchange(~0u, &mine, sizeof mine, at);
  if (!e.computed) {
    float left[16][8 * per], right[8 * per][8], sums[16][8] = {};
    for (unsigned l = 0; l < 32; ++l) {
      Fragments f;
      std::memcpy(&f, e.lane[l], sizeof f);
      const unsigned g = l / 4, t = l % 4;
      for (unsigned i = 0; i < per; ++i) {
        for (unsigned r = 0; r < 4; ++r) left[g + r % 2 * 8][r / 2 * 4 * per + t * per + i] = value(f.a[r], i);
        for (unsigned r = 0; r < 2; ++r) right[r * 4 * per + t * per + i][g] = value(f.b[r], i);
      }
    }
    for (unsigned y = 0; y < 16; ++y)
      for (unsigned k = 0; k < 8 * per; ++k)
        for (unsigned x = 0; x < 8; ++x) sums[y][x] += left[y][k] * right[k][x];
    for (unsigned l = 0; l < 32; ++l)
      for (unsigned c = 0; c < 4; ++c) e.result[l][c] = sums[l / 4 + c / 2 * 8][l % 4 * 2 + c % 2];
    e.computed = true;
  }
  for (unsigned c = 0; c < 4; ++c) d[c] += e.result[fiber::lane_index()][c];
  fiber::done(e);
}
inline void multiply_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], LOMO_AT) { multiply<2>(d, a, b, bf16_of, at); }
inline void multiply_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], LOMO_AT) { multiply<2>(d, a, b, f16_of, at); }
// tf32: the low 13 bits of an operand do not count.
inline void multiply_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], LOMO_AT) {
  multiply<1>(d, a, b, [](unsigned bits, unsigned) { return std::bit_cast<float>(bits & 0xffffe000u); }, at);
}

}  // namespace lomo::gpu
