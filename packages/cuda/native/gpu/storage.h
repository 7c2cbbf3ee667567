// f32, bf16 and f16 in memory, f32 in registers: one element at a time, or eight from 16-byte aligned memory. To nearest even.
#pragma once

#include "gpu/kernel.h"

#if defined(LOMO_DEVICE)
namespace lomo::gpu {

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float(static_cast<u32>(x.bits) << 16); }

#if defined(LOMO_FIBER)
inline float widen(f16 x) { return f16_of(x.bits, 0); }
inline u16 bf16_bits(float x) {
  const u32 u = __float_as_uint(x);
  return static_cast<u16>(x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
inline u16 f16_bits(float x) {
  const u32 u = __float_as_uint(x), sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
  if (size > 0x7f800000u) return 0x7fff;
  if (size >= 0x47800000u) return static_cast<u16>(sign | 0x7c00u);
  if (size < 0x38800000u) return static_cast<u16>(sign | static_cast<u32>(std::nearbyint(std::ldexp(static_cast<double>(__uint_as_float(size)), 24))));
  return static_cast<u16>(sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13);
}
inline u32 pair(bf16*, float low, float high) { return bf16_bits(low) | static_cast<u32>(bf16_bits(high)) << 16; }
inline u32 pair(f16*, float low, float high) { return f16_bits(low) | static_cast<u32>(f16_bits(high)) << 16; }
#else
__device__ __forceinline__ float widen(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
__device__ __forceinline__ u32 pair(bf16*, float low, float high) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
__device__ __forceinline__ u32 pair(f16*, float low, float high) {
  u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
#endif

__device__ __forceinline__ void put(float* p, float x) { *p = x; }
__device__ __forceinline__ void put(bf16* p, float x) { p->bits = static_cast<u16>(pair(p, x, 0.0f)); }
__device__ __forceinline__ void put(f16* p, float x) { p->bits = static_cast<u16>(pair(p, x, 0.0f)); }

template <class T> __device__ __forceinline__ float get(const T* p) { return widen(*p); }

__device__ __forceinline__ void load8(float (&v)[8], const float* p) {
  const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
template <class T> __device__ __forceinline__ void load8(float (&v)[8], const T* p) {
  const uint4 a = *reinterpret_cast<const uint4*>(p);
  const u32 words[4] = {a.x, a.y, a.z, a.w};
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = widen(T{static_cast<u16>(words[i])});
    v[2 * i + 1] = widen(T{static_cast<u16>(words[i] >> 16)});
  }
}
__device__ __forceinline__ void store8(float* p, const float (&v)[8]) {
  reinterpret_cast<float4*>(p)[0] = float4{v[0], v[1], v[2], v[3]};
  reinterpret_cast<float4*>(p)[1] = float4{v[4], v[5], v[6], v[7]};
}
template <class T> __device__ __forceinline__ void store8(T* p, const float (&v)[8]) {
  *reinterpret_cast<uint4*>(p) = uint4{pair(p, v[0], v[1]), pair(p, v[2], v[3]), pair(p, v[4], v[5]), pair(p, v[6], v[7])};
}

__device__ __forceinline__ void load4(float (&v)[4], const float* p) {
  const float4 a = *reinterpret_cast<const float4*>(p);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
}
template <class T> __device__ __forceinline__ void load4(float (&v)[4], const T* p) {
  const uint2 a = *reinterpret_cast<const uint2*>(p);
  v[0] = widen(T{static_cast<u16>(a.x)}), v[1] = widen(T{static_cast<u16>(a.x >> 16)}), v[2] = widen(T{static_cast<u16>(a.y)}), v[3] = widen(T{static_cast<u16>(a.y >> 16)});
}
__device__ __forceinline__ void store4(float* p, const float (&v)[4]) { *reinterpret_cast<float4*>(p) = float4{v[0], v[1], v[2], v[3]}; }
template <class T> __device__ __forceinline__ void store4(T* p, const float (&v)[4]) { *reinterpret_cast<uint2*>(p) = uint2{pair(p, v[0], v[1]), pair(p, v[2], v[3])}; }

// The whole grid over n elements: eight(i) where eight from i on may be taken at once (`wide`: every pointer is 16-byte aligned), else one(i).
template <class Eight, class One> __device__ __forceinline__ void sweep(i64 n, bool wide, Eight eight, One one) {
  const i64 groups = wide ? n / 8 : 0;
  for (i64 g = sweep_start(); g < groups; g += sweep_stride()) eight(8 * g);
  for (i64 i = 8 * groups + sweep_start(); i < n; i += sweep_stride()) one(i);
}

}  // namespace lomo::gpu
#endif
