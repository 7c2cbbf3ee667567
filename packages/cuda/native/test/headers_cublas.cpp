// cuBLASLt's numbers and structs as we declare them against its own header; scripts/headers.mjs adds the functions.
#include <cublasLt.h>

#include "cublas/api.h"
#include "test/headers.h"

using namespace lomo;

SAME(sizeof(cublas::Status), sizeof(cublasStatus_t));
SAME(cublas::success, CUBLAS_STATUS_SUCCESS);
SAME(cublas::not_supported, CUBLAS_STATUS_NOT_SUPPORTED);
SAME(cublas::type_f32, CUDA_R_32F);
SAME(cublas::type_f16, CUDA_R_16F);
SAME(cublas::type_bf16, CUDA_R_16BF);
SAME(cublas::compute_f32, CUBLAS_COMPUTE_32F);
SAME(cublas::operation_transpose_a, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(cublas::operation_transpose_b, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(cublas::preference_workspace, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(cublas::preference_alignment_a, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(cublas::preference_alignment_b, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME(cublas::preference_alignment_c, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME(cublas::preference_alignment_d, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(sizeof(cublas::Algorithm), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(cublas::Heuristic), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(cublas::Heuristic, algorithm), offsetof(cublasLtMatmulHeuristicResult_t, algo));
SAME(offsetof(cublas::Heuristic, workspace), offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME(offsetof(cublas::Heuristic, state), offsetof(cublasLtMatmulHeuristicResult_t, state));
SAME(offsetof(cublas::Heuristic, waves), offsetof(cublasLtMatmulHeuristicResult_t, wavesCount));
SAME(CUBLAS_OP_N, 0);
SAME(CUBLAS_OP_T, 1);
