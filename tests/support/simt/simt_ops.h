// The op table of kernels/cuda over the emulation: the same kernels, on the CPU. A fault of a kernel throws simt::Fault from the
// op that launched it.
#pragma once

#include "kernels/cuda/cuda_ops.h"

namespace runahead::cuda {

const CudaOps& simt_ops();

}  // namespace runahead::cuda
