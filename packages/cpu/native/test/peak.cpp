// The rate of independent f32 fused multiply-adds on one AVX-512 thread, in FLOP/s: what attention's speed is compared with.
#include <ctime>

#include <immintrin.h>

double fma_peak();
double fma_peak() {
  __m512 sum[24];
#pragma GCC unroll 24
  for (int i = 0; i < 24; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  const int rounds = 2000000;
  const auto now = [] {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  };
  const double start = now();
  for (int n = 0; n < rounds; ++n) {
    asm volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) sum[i] = _mm512_fmadd_ps(sum[i], x, y);
  }
#pragma GCC unroll 24
  for (int i = 0; i < 24; ++i) asm volatile("" : "+v"(sum[i]));
  return rounds * 24.0 * 32 / (now() - start);
}
