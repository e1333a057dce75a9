// kernels/cuda/cublaslt_api.h against the header of a release: compiled, not run, by tests/run.sh cuda.
#include <cublasLt.h>

#include <cstddef>
#include <type_traits>

#include "kernels/cuda/cublaslt_api.h"

namespace runahead::cuda {

static_assert(kCublasSuccess == CUBLAS_STATUS_SUCCESS && sizeof(CublasStatus) == sizeof(cublasStatus_t));
static_assert(kCudaFloat == CUDA_R_32F && kCudaBf16 == CUDA_R_16BF && kCublasCompute32F == CUBLAS_COMPUTE_32F);
static_assert(kCublasTransposed == CUBLAS_OP_T);
static_assert(kLtTransposeA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kLtWorkspaceMax == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kLtReductionSchemes == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
static_assert(kLtNoReduction == CUBLASLT_REDUCTION_SCHEME_NONE);
static_assert(kLtAlignment[0] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
              kLtAlignment[1] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES &&
              kLtAlignment[2] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES &&
              kLtAlignment[3] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(kLtAlgoSplitK == CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
static_assert(kLtAlgoReduction == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);

static_assert(sizeof(LtAlgo) == sizeof(cublasLtMatmulAlgo_t) &&
              sizeof(LtHeuristic) == sizeof(cublasLtMatmulHeuristicResult_t));
#define SAME_PLACE(ours, theirs) \
  static_assert(offsetof(LtHeuristic, ours) == offsetof(cublasLtMatmulHeuristicResult_t, theirs))
SAME_PLACE(algo, algo);
SAME_PLACE(workspace_bytes, workspaceSize);
SAME_PLACE(state, state);
SAME_PLACE(waves, wavesCount);
SAME_PLACE(reserved, reserved);

// Enumerations are ints to the caller; handles are pointers.
template <class Ours, class Theirs>
constexpr bool same_call = false;
template <class Result, class... Ours, class TheirResult, class... Theirs>
constexpr bool same_call<Result (*)(Ours...), TheirResult(Theirs...)> =
    sizeof(Result) == sizeof(TheirResult) &&
    ((sizeof(Ours) == sizeof(Theirs) && std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>) && ...);
static_assert(same_call<decltype(CublasLtApi::get_version), decltype(cublasLtGetVersion)>);
static_assert(same_call<decltype(CublasLtApi::status_name), decltype(cublasLtGetStatusName)>);
static_assert(same_call<decltype(CublasLtApi::create), decltype(cublasLtCreate)>);
static_assert(same_call<decltype(CublasLtApi::destroy), decltype(cublasLtDestroy)>);
static_assert(same_call<decltype(CublasLtApi::product_create), decltype(cublasLtMatmulDescCreate)>);
static_assert(same_call<decltype(CublasLtApi::product_destroy), decltype(cublasLtMatmulDescDestroy)>);
static_assert(same_call<decltype(CublasLtApi::product_set), decltype(cublasLtMatmulDescSetAttribute)>);
static_assert(same_call<decltype(CublasLtApi::layout_create), decltype(cublasLtMatrixLayoutCreate)>);
static_assert(same_call<decltype(CublasLtApi::layout_destroy), decltype(cublasLtMatrixLayoutDestroy)>);
static_assert(same_call<decltype(CublasLtApi::preference_create), decltype(cublasLtMatmulPreferenceCreate)>);
static_assert(same_call<decltype(CublasLtApi::preference_destroy), decltype(cublasLtMatmulPreferenceDestroy)>);
static_assert(same_call<decltype(CublasLtApi::preference_set), decltype(cublasLtMatmulPreferenceSetAttribute)>);
static_assert(same_call<decltype(CublasLtApi::heuristics), decltype(cublasLtMatmulAlgoGetHeuristic)>);
static_assert(same_call<decltype(CublasLtApi::algo_check), decltype(cublasLtMatmulAlgoCheck)>);
static_assert(same_call<decltype(CublasLtApi::algo_get), decltype(cublasLtMatmulAlgoConfigGetAttribute)>);
static_assert(same_call<decltype(CublasLtApi::multiply), decltype(cublasLtMatmul)>);

}  // namespace runahead::cuda
