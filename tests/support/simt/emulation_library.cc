// What librunahead_cuda.so exports, over the emulation: for tests of who opens it ($RUNAHEAD_CUDA_LIBRARY).
#include <cstdio>

#include "simt_ops.h"

extern "C" const runahead::cuda::CudaOps* runahead_cuda_open(int device, char* why, size_t why_bytes) {
  if (device == 0) return &runahead::cuda::simt_device();
  std::snprintf(why, why_bytes, "there is no device %d, there are 1", device);
  return nullptr;
}
