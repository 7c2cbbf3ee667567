// The instruction sets compiled in and present, and the order of the test files.
#include "harness.h"

#define LOMO_FILES(X) X(elementwise) X(cast) X(silu_mul) X(rms_norm) X(rope) X(embedding) X(cross_entropy) X(token_sum) X(normal_fill) X(sample) X(cache_write) X(gate) X(norm) X(lomo_update) X(adamw_update) X(adalomo) X(vector_f16)
#define LOMO_DECLARE(f) extern const Kernel kernels_##f[];
#define LOMO_LIST(f) kernels_##f,
#define LOMO_SET(isa)                                                              \
  namespace lomo::isa {                                                            \
  LOMO_FILES(LOMO_DECLARE)                                                         \
  static const Kernel* const files[] = {LOMO_FILES(LOMO_LIST) nullptr};            \
  void test_simd(const char* name);                                                \
  }
LOMO_SET(portable)
#ifndef LOMO_PORTABLE_ONLY
LOMO_SET(avx2)
LOMO_SET(avx512)
#endif

namespace test {
const std::vector<Isa>& isas() {
  static const std::vector<Isa> found = [] {
    std::vector<Isa> v{{"portable", lomo::portable::files}};
#ifndef LOMO_PORTABLE_ONLY
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) v.push_back({"avx2", lomo::avx2::files});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) v.push_back({"avx512", lomo::avx512::files});
#endif
    return v;
  }();
  return found;
}
void expect_from_simd(bool ok, const char* what) { expect(ok, what); }
void test_forward();
void test_loss();
void test_updates();
void test_rounding();
void test_adalomo();
void test_f16();
void speed();
}  // namespace test

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "speed") == 0) { test::speed(); return 0; }
  lomo::portable::test_simd("portable");
#ifndef LOMO_PORTABLE_ONLY
  for (const auto& isa : test::isas()) {
    if (std::strcmp(isa.name, "avx2") == 0) lomo::avx2::test_simd("avx2");
    if (std::strcmp(isa.name, "avx512") == 0) lomo::avx512::test_simd("avx512");
  }
#endif
  test::test_forward();
  test::test_loss();
  test::test_updates();
  test::test_rounding();
  test::test_adalomo();
  test::test_f16();
  std::printf("%d passed, %d failed, 0 skipped on", test::passes(), test::failures());
  for (const auto& isa : test::isas()) std::printf(" %s", isa.name);
  std::printf("\n");
  return test::failures() == 0 ? 0 : 1;
}
