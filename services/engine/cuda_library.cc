#include "services/engine/cuda_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace runahead {
namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "librunahead_cuda.so";
constexpr const char* kSymbol = "runahead_cuda_open";
using Open = const cuda::CudaOps* (*)(int device, char* why, size_t why_bytes);

std::vector<fs::path> places() {
  if (const char* said = std::getenv("RUNAHEAD_CUDA_LIBRARY")) return {said};
  std::error_code ignored;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  return {folder / kName, folder.parent_path() / "lib" / "runahead" / kName};
}

Error no_gpu(const std::string& why) {
  return {ErrorCode::kUnavailable, "no GPU is used: " + why + "; --compute auto runs on the CPU", "compute"};
}

}  // namespace

Result<const cuda::CudaOps*> open_cuda(int device) {
  const std::vector<fs::path> searched = places();
  for (const fs::path& path : searched) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) continue;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return std::unexpected(no_gpu(dlerror()));
    const auto open = reinterpret_cast<Open>(dlsym(library, kSymbol));
    if (open == nullptr)
      return std::unexpected(no_gpu(path.string() + " is no part of Runahead, it has no " + kSymbol));
    char why[512] = "";
    const cuda::CudaOps* ops = open(device, why, sizeof why);
    if (ops == nullptr) return std::unexpected(no_gpu(why));
    return ops;
  }
  return std::unexpected(
      no_gpu("there is no " + searched.front().string() + ", which a build with RUNAHEAD_CUDA makes"));
}

}  // namespace runahead
