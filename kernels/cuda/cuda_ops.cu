// The op table on a real device: one stream, memory from its pool, kernels as they are. Built by nvcc into a shared object of its
// own, librunahead_cuda.so, which holds CUDA's runtime and opens cuBLASLt where there is one; runahead_cuda_open is all that it
// exports.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>

#include "kernels/cuda/launches.cuh"
#include "kernels/cuda/library_gemm.h"

namespace runahead::cuda {
namespace {

cudaStream_t stream = nullptr;
int number = 0;  // of the device
std::atomic<const char*> first_error = nullptr;

void note(const char* error) {
  const char* none = nullptr;
  if (error != nullptr) first_error.compare_exchange_strong(none, error);
}
void note(cudaError_t status) { note(status == cudaSuccess ? nullptr : cudaGetErrorString(status)); }

void* allocate(size_t bytes) {
  void* device = nullptr;
  if (cudaMallocAsync(&device, bytes, stream) == cudaSuccess) return device;
  cudaGetLastError();  // it is told, and over
  return nullptr;
}

cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

void add_streams(CudaOps& ops) {
  ops.use_device = [] { note(cudaSetDevice(number)); };
  ops.make_stream = []() -> void* {
    cudaStream_t made = nullptr;
    note(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    return made;
  };
  ops.free_stream = [](void* handle) {
    note(cudaStreamSynchronize(stream_of(handle)));
    note(cudaStreamDestroy(stream_of(handle)));
  };
  ops.make_event = []() -> void* {
    cudaEvent_t made = nullptr;
    note(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
    return made;
  };
  ops.free_event = [](void* event) { note(cudaEventDestroy(event_of(event))); };
  ops.record = [](void* event, void* handle) { note(cudaEventRecord(event_of(event), stream_of(handle))); };
  ops.has_passed = [](void* event) {
    const cudaError_t status = cudaEventQuery(event_of(event));
    if (status != cudaErrorNotReady) note(status);
    return status != cudaErrorNotReady;
  };
  ops.allocate_apart = [](size_t bytes) -> void* {
    void* made = nullptr;
    if (cudaMalloc(&made, bytes) == cudaSuccess) return made;
    cudaGetLastError();  // it is told, and over
    return nullptr;
  };
  ops.release_apart = [](void* device) { note(cudaFree(device)); };
  ops.allocate_shared = [](size_t bytes) -> void* {
    void* made = nullptr;
    if (cudaHostAlloc(&made, bytes, cudaHostAllocDefault) == cudaSuccess) return made;
    cudaGetLastError();  // it is told, and over
    return nullptr;
  };
  ops.release_shared = [](void* memory) { note(cudaFreeHost(memory)); };
}

CudaOps make_ops(const char* name, const char* kind) {
  CudaOps ops{.device = name, .kind = kind};
  ops.allocate = allocate;
  ops.release = [](void* device) { note(cudaFreeAsync(device, stream)); };
  ops.to_device = [](void* device, const void* host, size_t bytes) {
    note(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                         stream));  // pageable memory: staged before it returns
  };
  ops.to_host = [](void* host, const void* device, size_t bytes) {
    note(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
    note(cudaStreamSynchronize(stream));
  };
  ops.copy = [](void* device, const void* from, size_t bytes) {
    note(cudaMemcpyAsync(device, from, bytes, cudaMemcpyDeviceToDevice, stream));
  };
  ops.clear = [](void* device, size_t bytes) { note(cudaMemsetAsync(device, 0, bytes, stream)); };
  ops.finish = [] { note(cudaStreamSynchronize(stream)); };
  ops.free_bytes = [] {
    size_t free = 0, total = 0;
    note(cudaMemGetInfo(&free, &total));
    return free;
  };
  ops.error = [] { return first_error.load(); };
  add_streams(ops);
  add_kernels(ops);
  return ops;
}

}  // namespace

template <class Args>
void start_on(void* handle, void (*kernel)(Args), Grid grid, int threads, const Args& args) {
  kernel<<<dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z)),
           static_cast<unsigned>(threads), 0, stream_of(handle)>>>(args);
  note(cudaGetLastError());
}

template <class Args>
void start(void (*kernel)(Args), Grid grid, int threads, const Args& args) {
  start_on(stream, kernel, grid, threads, args);
}

}  // namespace runahead::cuda

// The table of the device of this number, or nullptr with the reason in `why`. Once a process.
extern "C" __attribute__((visibility("default"))) const runahead::cuda::CudaOps* runahead_cuda_open(int device,
                                                                                                    char* why,
                                                                                                    size_t why_bytes) {
  using runahead::cuda::stream;
  runahead::cuda::number = device;
  static char name[256], kind[16];
  static runahead::cuda::CudaOps ops;
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && device >= count) {
    std::snprintf(why, why_bytes, "there is no device %d, there are %d", device, count);
    return nullptr;
  }
  cudaDeviceProp properties{};
  cudaMemPool_t pool = nullptr;
  uint64_t keep_all = ~uint64_t{0};
  if (status == cudaSuccess) status = cudaSetDevice(device);
  if (status == cudaSuccess) status = cudaGetDeviceProperties(&properties, device);
  if (status == cudaSuccess) status = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (status == cudaSuccess) status = cudaDeviceGetDefaultMemPool(&pool, device);
  if (status == cudaSuccess) status = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep_all);
  if (status != cudaSuccess) {
    std::snprintf(why, why_bytes, "%s", cudaGetErrorString(status));
    return nullptr;
  }
  if (properties.major < 8) {
    std::snprintf(why, why_bytes, "%s is of compute capability %d.%d; 8.0 is the least", properties.name,
                  properties.major, properties.minor);
    return nullptr;
  }
  std::snprintf(name, sizeof name, "%s", properties.name);
  std::snprintf(kind, sizeof kind, "sm_%d%d", properties.major, properties.minor);
  ops = runahead::cuda::make_ops(name, kind);
  std::string no_library;
  if (add_library_gemm({ops, stream, properties.multiProcessorCount}, ops, runahead::cuda::note, no_library))
    return &ops;
  std::snprintf(why, why_bytes, "%s", no_library.c_str());
  return nullptr;
}
