#include "kernels/cuda/cublaslt_api.h"

#include <dlfcn.h>

#include <cstdlib>

namespace runahead::cuda {
namespace {

constexpr size_t kOldest = 120000;

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool find_all(void* library, CublasLtApi& api) {
  return find(library, "cublasLtGetVersion", api.get_version) &&
         find(library, "cublasLtGetStatusName", api.status_name) && find(library, "cublasLtCreate", api.create) &&
         find(library, "cublasLtDestroy", api.destroy) &&
         find(library, "cublasLtMatmulDescCreate", api.product_create) &&
         find(library, "cublasLtMatmulDescDestroy", api.product_destroy) &&
         find(library, "cublasLtMatmulDescSetAttribute", api.product_set) &&
         find(library, "cublasLtMatrixLayoutCreate", api.layout_create) &&
         find(library, "cublasLtMatrixLayoutDestroy", api.layout_destroy) &&
         find(library, "cublasLtMatmulPreferenceCreate", api.preference_create) &&
         find(library, "cublasLtMatmulPreferenceDestroy", api.preference_destroy) &&
         find(library, "cublasLtMatmulPreferenceSetAttribute", api.preference_set) &&
         find(library, "cublasLtMatmulAlgoGetHeuristic", api.heuristics) &&
         find(library, "cublasLtMatmulAlgoCheck", api.algo_check) &&
         find(library, "cublasLtMatmulAlgoConfigGetAttribute", api.algo_get) &&
         find(library, "cublasLtMatmul", api.multiply);
}

}  // namespace

std::optional<CublasLtApi> open_cublaslt(std::string& why) {
  const char* said = std::getenv("RUNAHEAD_CUBLASLT_LIBRARY");
  std::string name = said != nullptr ? said : "libcublasLt.so.13";
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) why = dlerror();
  if (library == nullptr && said == nullptr)
    library = dlopen((name = "libcublasLt.so.12").c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::nullopt;
  CublasLtApi api;
  if (find_all(library, api)) api.version = api.get_version();
  if (api.version >= kOldest) return api;
  why = name + " is no cuBLASLt, or one older than 12";
  return std::nullopt;
}

}  // namespace runahead::cuda
