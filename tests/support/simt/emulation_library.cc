// What librunahead_cuda.so exports, over the emulation: for tests of who opens it ($RUNAHEAD_CUDA_LIBRARY). If
// $RUNAHEAD_CUBLASLT_LIBRARY names a library, its double, products are by it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/cuda/library_gemm.h"
#include "simt.h"
#include "simt_ops.h"

extern "C" const runahead::cuda::CudaOps* runahead_cuda_open(int device, char* why, size_t why_bytes) {
  using namespace runahead::cuda;
  static CudaOps ops = simt_device();
  std::string said = "there is no device " + std::to_string(device) + ", there are 1";
  if (device == 0 && std::getenv("RUNAHEAD_CUBLASLT_LIBRARY") == nullptr) return &ops;
  const auto note = [](const char* failure) { throw simt::Fault(failure); };
  if (device == 0 && add_library_gemm({.ops = ops, .multiprocessors = 1}, ops, note, said)) return &ops;
  std::snprintf(why, why_bytes, "%s", said.c_str());
  return nullptr;
}
