// librunahead_cuda.so, the part for NVIDIA's devices (kernels/cuda, ADR 23): opened when a device is asked for, from beside the
// program or from ../lib/runahead, or where $RUNAHEAD_CUDA_LIBRARY says. It stays open until the process ends.
#pragma once

#include "base/result.h"
#include "kernels/cuda/cuda_ops.h"

namespace runahead {

// kUnavailable with one sentence that says what is missing: the library, the driver, or a device.
Result<const cuda::CudaOps*> open_cuda(int device);

}  // namespace runahead
