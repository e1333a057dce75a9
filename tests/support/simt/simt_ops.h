// The op table of kernels/cuda over the emulation: the same kernels, on the CPU. A fault of a kernel throws simt::Fault from the
// op that launched it.
#pragma once

#include "kernels/cuda/cuda_ops.h"

namespace runahead::cuda {

const CudaOps& simt_ops();
// The same as a device: what a call says is on the device must be in memory of allocate(), and what it says is the host's must
// not, or simt::Fault. For those who drive it.
const CudaOps& simt_device();

}  // namespace runahead::cuda
