// A part of a device's multiprocessors, for several workers on one GPU: $RUNAHEAD_CUDA_PART, e.g. 2/4, the second quarter, or
// 2-4/4, the other three. Its streams are of a green context; memory, copies and everything else are the device's. Included by
// cuda_ops.cu alone. Needs CUDA 12.5's driver, whose functions are asked for by name: without a part nothing of it is.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace runahead::cuda {

class DevicePart {
 public:
  // False, with a sentence in `why`, if there is a part named that cannot be had.
  bool open(int device, int multiprocessors, char* why, size_t why_bytes);
  cudaError_t make_stream(cudaStream_t* stream) const {
    if (context_ == nullptr) return cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
    return create_stream_(stream, context_, CU_STREAM_NON_BLOCKING, 0) == CUDA_SUCCESS ? cudaSuccess : cudaErrorUnknown;
  }
  int multiprocessors(int all) const { return granted_ > 0 ? static_cast<int>(granted_) : all; }
  std::string told() const { return told_; }  // for people: ", 33 of 132 multiprocessors"; empty for all

 private:
  struct Wanted {
    int first = 0, last = 0, of = 0;
  };
  static bool parse(const char* text, Wanted& wanted);
  bool carve(CUdevice device, const Wanted& wanted);

  CUgreenCtx context_ = nullptr;  // until the process ends
  CUresult (*create_stream_)(CUstream*, CUgreenCtx, unsigned, int) = nullptr;
  unsigned granted_ = 0;  // multiprocessors
  std::string told_;
};

template <class Function>
bool find_in_driver(const char* name, Function& function) {
  cudaDriverEntryPointQueryResult found{};
  void* address = nullptr;
  const cudaError_t asked = cudaGetDriverEntryPointByVersion(name, &address, 12050, cudaEnableDefault, &found);
  function = reinterpret_cast<Function>(address);
  return asked == cudaSuccess && found == cudaDriverEntryPointSuccess && address != nullptr;
}

inline bool DevicePart::parse(const char* text, Wanted& wanted) {
  char end = 0;
  if (std::sscanf(text, "%d-%d/%d%c", &wanted.first, &wanted.last, &wanted.of, &end) != 3) {
    if (std::sscanf(text, "%d/%d%c", &wanted.first, &wanted.of, &end) != 2) return false;
    wanted.last = wanted.first;
  }
  return wanted.first >= 1 && wanted.first <= wanted.last && wanted.last <= wanted.of && wanted.of <= 64;
}

// The multiprocessors in so many groups as there are parts, the wanted ones together.
inline bool DevicePart::carve(CUdevice device, const Wanted& wanted) {
  decltype(&cuDeviceGetDevResource) get_resource = nullptr;
  decltype(&cuDevSmResourceSplitByCount) split = nullptr;
  decltype(&cuDevResourceGenerateDesc) describe = nullptr;
  decltype(&cuGreenCtxCreate) create = nullptr;
  if (!find_in_driver("cuDeviceGetDevResource", get_resource) ||
      !find_in_driver("cuDevSmResourceSplitByCount", split) || !find_in_driver("cuDevResourceGenerateDesc", describe) ||
      !find_in_driver("cuGreenCtxCreate", create) || !find_in_driver("cuGreenCtxStreamCreate", create_stream_))
    return false;
  CUdevResource all{};
  if (get_resource(device, &all, CU_DEV_RESOURCE_TYPE_SM) != CUDA_SUCCESS) return false;
  const auto of = static_cast<unsigned>(wanted.of);
  std::vector<CUdevResource> groups(of);
  unsigned made = 0;
  // The driver rounds sizes up, by a rule of each architecture: 33 may be 40, of which there are only three in 132.
  for (unsigned size = all.sm.smCount / of; size > 0 && made < of; --size) {
    CUdevResource rest{};
    made = of;
    if (split(groups.data(), &made, &all, &rest, 0, size) != CUDA_SUCCESS) made = 0;
  }
  if (made < of) return false;
  const auto number = static_cast<unsigned>(wanted.last - wanted.first + 1);
  CUdevResource* own = groups.data() + wanted.first - 1;
  for (unsigned i = 0; i < number; ++i) granted_ += own[i].sm.smCount;
  CUdevResourceDesc description{};
  return describe(&description, own, number) == CUDA_SUCCESS &&
         create(&context_, description, device, CU_GREEN_CTX_DEFAULT_STREAM) == CUDA_SUCCESS;
}

inline bool DevicePart::open(int device, int multiprocessors, char* why, size_t why_bytes) {
  const char* text = std::getenv("RUNAHEAD_CUDA_PART");
  if (text == nullptr || *text == 0) return true;
  Wanted wanted;
  if (!parse(text, wanted)) {
    std::snprintf(why, why_bytes, "RUNAHEAD_CUDA_PART is '%.40s', and should be like 2/4 or 2-4/4, of 64 at most",
                  text);
    return false;
  }
  if (!carve(device, wanted)) {
    std::snprintf(why, why_bytes,
                  "the device cannot be divided as RUNAHEAD_CUDA_PART=%s says: it has %d multiprocessors, "
                  "which go in groups of 2 to 8, and the driver must be CUDA 12.5's or newer",
                  text, multiprocessors);
    return false;
  }
  told_ = ", " + std::to_string(granted_) + " of " + std::to_string(multiprocessors) + " multiprocessors";
  return true;
}

}  // namespace runahead::cuda
