// Philox4x32-10 (Salmon et al., 2011): four words of a block, a pure function of key and counter.
#pragma once

#include "gpu/storage.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

struct Words {
  u32 w[4];
};

__device__ __forceinline__ Words philox(u32 key0, u32 key1, u64 block, u32 counter2, u32 counter3) {
  u32 c0 = static_cast<u32>(block), c1 = static_cast<u32>(block >> 32), c2 = counter2, c3 = counter3;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u32 low0 = 0xd2511f53u * c0, low1 = 0xcd9e8d57u * c2;
    const u32 high0 = __umulhi(0xd2511f53u, c0), high1 = __umulhi(0xcd9e8d57u, c2);
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

// Up with the probability of the fraction dropped. Exact values stay, infinities and NaN stay what they are. The type is the pointer's.
__device__ __forceinline__ u32 stochastic(const bf16*, float x, u32 word) {
  const u32 u = __float_as_uint(x);
  return x != x ? u >> 16 | 0x40u : (u + (word & 0xffffu)) >> 16;
}
// Normals: the low 13 bits of the word. Below 2^-14 the spacing is 2^-24: up when word / 2^32 < the fraction of the value in those units.
__device__ __forceinline__ u32 stochastic(const f16*, float x, u32 word) {
  const u32 u = __float_as_uint(x) & 0x7fffffffu, sign = __float_as_uint(x) >> 16 & 0x8000u;
  const float size = __uint_as_float(u);
  u32 r;
  if (x != x) r = 0x7e00u;
  else if (size >= 65536.0f) r = 0x7c00u;
  else if (size < 0x1p-14f) {
    const float units = size * 0x1p24f;
    const int whole = static_cast<int>(units);
    const float high = static_cast<float>(word >> 8) * 0x1p-24f, low = static_cast<float>(word & 0xffu) * 0x1p-32f;
    r = static_cast<u32>(whole) + (low < units - static_cast<float>(whole) - high ? 1 : 0);
  } else r = (u + (word & 0x1fffu) - 0x38000000u) >> 13;
  return r | sign;
}
__device__ __forceinline__ void put_stochastic(float* p, float x, u32) { *p = x; }
template <class T> __device__ __forceinline__ void put_stochastic(T* p, float x, u32 word) { p->bits = static_cast<u16>(stochastic(p, x, word)); }
__device__ __forceinline__ void store4_stochastic(float* p, const float (&v)[4], const Words&) { store4(p, v); }
template <class T> __device__ __forceinline__ void store4_stochastic(T* p, const float (&v)[4], const Words& words) {
  *reinterpret_cast<uint2*>(p) = uint2{(stochastic(p, v[0], words.w[0]) & 0xffffu) | stochastic(p, v[1], words.w[1]) << 16, (stochastic(p, v[2], words.w[2]) & 0xffffu) | stochastic(p, v[3], words.w[3]) << 16};
}

}  // namespace lomo::gpu
#endif
