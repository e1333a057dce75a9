// cuBLASLt as far as products of ours use it, without its header: the library is opened at run time, so that neither a build nor
// a device needs it. Types and numbers are those of cublasLt.h since CUDA 12; tests/kernels/cuda/cublaslt_abi.cu holds them
// against the header of a release.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace runahead::cuda {

using CublasStatus = int;
inline constexpr CublasStatus kCublasSuccess = 0;

// cudaDataType, cublasComputeType_t, cublasOperation_t
inline constexpr int kCudaFloat = 0, kCudaBf16 = 14;
inline constexpr int kCublasCompute32F = 68;
inline constexpr int32_t kCublasTransposed = 1;

// Attributes: of a product, of what is asked of heuristics, of an algorithm.
inline constexpr int kLtTransposeA = 3;  // int32_t
inline constexpr int kLtWorkspaceMax = 1;  // uint64_t, in bytes
inline constexpr int kLtReductionSchemes = 3;  // uint32_t
inline constexpr uint32_t kLtNoReduction = 0;  // "dot-product shall be performed in one sequence"
inline constexpr int kLtAlignment[] = {5, 6, 7, 8};  // uint32_t, in bytes: of A, B, C and D
inline constexpr int kLtAlgoSplitK = 2;  // int32_t
inline constexpr int kLtAlgoReduction = 3;  // uint32_t

// "can be trivially serialized and later restored for use with the same version"
struct LtAlgo {
  uint64_t data[8];
};
struct LtHeuristic {
  LtAlgo algo;
  size_t workspace_bytes;
  CublasStatus state;
  float waves;
  int reserved[4];
};

// A and B are read, D = alpha op(A) op(B) + beta C; matrices lie column after column.
struct CublasLtApi {
  size_t version = 0;  // 130100 is 13.1.0
  size_t (*get_version)() = nullptr;
  const char* (*status_name)(CublasStatus) = nullptr;
  CublasStatus (*create)(void** handle) = nullptr;
  CublasStatus (*destroy)(void* handle) = nullptr;
  CublasStatus (*product_create)(void** product, int compute_type, int scale_type) = nullptr;
  CublasStatus (*product_destroy)(void* product) = nullptr;
  CublasStatus (*product_set)(void* product, int attribute, const void* value, size_t bytes) = nullptr;
  CublasStatus (*layout_create)(void** layout, int type, uint64_t rows, uint64_t cols, int64_t stride) = nullptr;
  CublasStatus (*layout_destroy)(void* layout) = nullptr;
  CublasStatus (*preference_create)(void** preference) = nullptr;
  CublasStatus (*preference_destroy)(void* preference) = nullptr;
  CublasStatus (*preference_set)(void* preference, int attribute, const void* value, size_t bytes) = nullptr;
  CublasStatus (*heuristics)(void* handle, void* product, void* a, void* b, void* c, void* d, void* preference,
                             int count, LtHeuristic* found, int* found_count) = nullptr;
  CublasStatus (*algo_check)(void* handle, void* product, void* a, void* b, void* c, void* d, const LtAlgo*,
                             LtHeuristic* found) = nullptr;
  CublasStatus (*algo_get)(const LtAlgo*, int attribute, void* value, size_t bytes, size_t* written) = nullptr;
  CublasStatus (*multiply)(void* handle, void* product, const void* alpha, const void* a, void* a_layout, const void* b,
                           void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                           const LtAlgo*, void* workspace, size_t workspace_bytes, void* stream) = nullptr;
};

// libcublasLt.so.13 or .12, or what $RUNAHEAD_CUBLASLT_LIBRARY names; it stays open. Without it `why` says what is missing.
std::optional<CublasLtApi> open_cublaslt(std::string& why);

}  // namespace runahead::cuda
