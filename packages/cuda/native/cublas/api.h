// The part of cuBLASLt's interface that we use, declared by hand: its headers come with a library of half a gigabyte.
#pragma once

#include <cstddef>
#include <cstdint>

#include "driver/api.h"

namespace lomo::cublas {

using Status = int;
struct HandleBody;
using Handle = HandleBody*;
using Operation = void*;   // cublasLtMatmulDesc_t
using Layout = void*;      // cublasLtMatrixLayout_t
using Preference = void*;  // cublasLtMatmulPreference_t

struct Algorithm {
  std::uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  std::size_t workspace;
  Status state;
  float waves;
  int reserved[4];
};

constexpr Status success = 0, not_supported = 15;
constexpr int type_f32 = 0, type_f16 = 2, type_bf16 = 14;
constexpr int compute_f32 = 68;  // no tf32
constexpr int operation_transpose_a = 3, operation_transpose_b = 4;
constexpr int configuration_split = 2, configuration_reduction = 3;  // of an algorithm
constexpr int preference_workspace = 1, preference_reductions = 3, preference_alignment_a = 5, preference_alignment_b = 6, preference_alignment_c = 7, preference_alignment_d = 8;

#define LOMO_CUBLAS_ENTRIES(X)                                                                                                         \
  X(Status, create, "cublasLtCreate", (Handle*))                                                                                       \
  X(Status, destroy, "cublasLtDestroy", (Handle))                                                                                      \
  X(std::size_t, get_version, "cublasLtGetVersion", ())                                                                                \
  X(Status, operation_create, "cublasLtMatmulDescCreate", (Operation*, int, int))                                                      \
  X(Status, operation_destroy, "cublasLtMatmulDescDestroy", (Operation))                                                               \
  X(Status, operation_set, "cublasLtMatmulDescSetAttribute", (Operation, int, const void*, std::size_t))                               \
  X(Status, layout_create, "cublasLtMatrixLayoutCreate", (Layout*, int, std::uint64_t, std::uint64_t, std::int64_t))                   \
  X(Status, layout_destroy, "cublasLtMatrixLayoutDestroy", (Layout))                                                                   \
  X(Status, preference_create, "cublasLtMatmulPreferenceCreate", (Preference*))                                                        \
  X(Status, preference_destroy, "cublasLtMatmulPreferenceDestroy", (Preference))                                                       \
  X(Status, preference_set, "cublasLtMatmulPreferenceSetAttribute", (Preference, int, const void*, std::size_t))                       \
  X(Status, heuristic, "cublasLtMatmulAlgoGetHeuristic", (Handle, Operation, Layout, Layout, Layout, Layout, Preference, int, Heuristic*, int*)) \
  X(Status, algorithm_check, "cublasLtMatmulAlgoCheck", (Handle, Operation, Layout, Layout, Layout, Layout, const Algorithm*, Heuristic*))    \
  X(Status, algorithm_get, "cublasLtMatmulAlgoConfigGetAttribute", (const Algorithm*, int, void*, std::size_t, std::size_t*))             \
  X(Status, matmul, "cublasLtMatmul", (Handle, Operation, const void*, const void*, Layout, const void*, Layout, const void*, const void*, Layout, void*, Layout, const Algorithm*, void*, std::size_t, cu::Stream))

// The entries, filled by whoever opens the library.
struct Entries {
#define X(type, name, symbol, parameters) type(*name) parameters = nullptr;
  LOMO_CUBLAS_ENTRIES(X)
#undef X
};

}  // namespace lomo::cublas
