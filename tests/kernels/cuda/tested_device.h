// The device that the tests of kernels/cuda run on: the emulation, or with RUNAHEAD_TEST_CUDA_LIBRARY the GPU behind that
// librunahead_cuda.so (tests/run.sh gpu). Array: a vector that both sides see, so that the bodies are the same.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "simt_ops.h"

namespace runahead::cuda {

inline const CudaOps* open_tested_gpu() {
  const char* path = std::getenv("RUNAHEAD_TEST_CUDA_LIBRARY");
  if (path == nullptr) return nullptr;
  char why[256] = "it has no runahead_cuda_open";
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  using Open = const CudaOps* (*)(int, char*, size_t);
  const auto open = library == nullptr ? nullptr : reinterpret_cast<Open>(dlsym(library, "runahead_cuda_open"));
  const CudaOps* ops = open == nullptr ? nullptr : open(0, why, sizeof why);
  if (ops != nullptr) return ops;
  std::fprintf(stderr, "%s cannot be tested: %s\n", path, library == nullptr ? dlerror() : why);
  std::exit(1);
}

inline const CudaOps* tested_gpu() {
  static const CudaOps* const gpu = open_tested_gpu();
  return gpu;
}

// simt_ops() takes memory of the host for the device's; simt_device() does not.
inline const CudaOps& tested_ops() { return tested_gpu() != nullptr ? *tested_gpu() : simt_ops(); }
inline const CudaOps& tested_device() { return tested_gpu() != nullptr ? *tested_gpu() : simt_device(); }

// Over the emulation it is malloc's, so that AddressSanitizer watches the vector's end.
template <class T>
struct BothSides {
  using value_type = T;
  BothSides() = default;
  template <class U>
  explicit(false) BothSides(const BothSides<U>&) {}
  T* allocate(size_t count) {
    void* made =
        tested_gpu() != nullptr ? tested_gpu()->allocate_shared(count * sizeof(T)) : std::malloc(count * sizeof(T));
    if (made == nullptr) throw std::bad_alloc();
    return static_cast<T*>(made);
  }
  void deallocate(T* memory, size_t) {
    auto* shared = static_cast<void*>(memory);
    if (tested_gpu() != nullptr) tested_gpu()->release_shared(shared);
    else std::free(shared);
  }
  bool operator==(const BothSides&) const { return true; }
};
template <class T>
using Array = std::vector<T, BothSides<T>>;

}  // namespace runahead::cuda
