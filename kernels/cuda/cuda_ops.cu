// The op table on a real device: one stream, memory from its pool, kernels as they are. Built by nvcc into a shared object of its
// own, librunahead_cuda.so, which holds CUDA's runtime and opens cuBLASLt where there is one; runahead_cuda_open is all that it
// exports.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <type_traits>

#include "kernels/cuda/device_part.h"
#include "kernels/cuda/launches.cuh"
#include "kernels/cuda/library_gemm.h"

namespace runahead::cuda {
namespace {

DevicePart part;
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
    note(part.make_stream(&made));
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

// A release from another thread must not become a part of the graph.
std::mutex graph_mutex;

void add_graphs(CudaOps& ops) {
  ops.begin_graph = [] {
    graph_mutex.lock();
    note(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  };
  ops.end_graph = []() -> void* {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t made = nullptr;
    const bool kept =
        cudaStreamEndCapture(stream, &graph) == cudaSuccess && cudaGraphInstantiate(&made, graph, 0) == cudaSuccess;
    graph_mutex.unlock();
    if (graph != nullptr) note(cudaGraphDestroy(graph));
    if (kept) return made;
    cudaGetLastError();  // it is told, and over
    return nullptr;
  };
  ops.run_graph = [](void* graph) { note(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream)); };
  ops.free_graph = [](void* graph) { note(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph))); };
}

void add_copies_beside(CudaOps& ops) {
  ops.to_host_on = [](void* handle, void* host, const void* device, size_t bytes) {
    note(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_of(handle)));
  };
  ops.copy_on = [](void* handle, void* device, const void* from, size_t bytes) {
    note(cudaMemcpyAsync(device, from, bytes, cudaMemcpyDeviceToDevice, stream_of(handle)));
  };
  ops.share = [](void* device, void* handle) {
    const bool shared = cudaIpcGetMemHandle(static_cast<cudaIpcMemHandle_t*>(handle), device) == cudaSuccess;
    if (!shared) cudaGetLastError();  // it is told, and over
    return shared;
  };
  ops.open_shared = [](const void* handle, size_t* bytes) -> void* {
    static_assert(sizeof(cudaIpcMemHandle_t) == 64);
    cudaIpcMemHandle_t copied;
    std::memcpy(&copied, handle, sizeof copied);
    void* opened = nullptr;
    if (cudaIpcOpenMemHandle(&opened, copied, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess) {
      cudaGetLastError();  // it is told, and over
      return nullptr;
    }
    CUresult (*range_of)(CUdeviceptr*, size_t*, CUdeviceptr) = nullptr;
    if (find_in_driver("cuMemGetAddressRange", range_of) &&
        range_of(nullptr, bytes, reinterpret_cast<CUdeviceptr>(opened)) == CUDA_SUCCESS)
      return opened;
    note(cudaIpcCloseMemHandle(opened));
    return nullptr;
  };
  ops.close_shared = [](void* opened) { note(cudaIpcCloseMemHandle(opened)); };
  ops.follow = [](void* handle) {
    thread_local cudaEvent_t reached = nullptr;  // for the thread's life: a wait takes the record before it
    if (reached == nullptr) note(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming));
    note(cudaEventRecord(reached, stream));
    note(cudaStreamWaitEvent(stream_of(handle), reached, 0));
  };
  ops.call_on = [](void* handle, void (*call)(void*), void* with) {
    note(cudaLaunchHostFunc(stream_of(handle), call, with));
  };
  ops.pin = [](void* host, size_t bytes) {
    const bool pinned = cudaHostRegister(host, bytes, cudaHostRegisterDefault) == cudaSuccess;
    if (!pinned) cudaGetLastError();  // it is told, and over
    return pinned;
  };
  ops.unpin = [](void* host) { note(cudaHostUnregister(host)); };
}

CudaOps make_ops(const char* name, const char* kind, const char* id) {
  CudaOps ops{.device = name, .kind = kind, .id = id};
  ops.allocate = allocate;
  ops.release = [](void* device) {
    const std::lock_guard lock(graph_mutex);
    note(cudaFreeAsync(device, stream));
  };
  ops.to_device = [](void* device, const void* host, size_t bytes) {
    note(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                         stream));  // pageable memory: staged before it returns; pinned is that of pages, which stay
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
  add_graphs(ops);
  add_copies_beside(ops);
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
  using runahead::cuda::part;
  using runahead::cuda::stream;
  runahead::cuda::number = device;
  static char name[256], kind[16], id[33];
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
  if (status == cudaSuccess) status = cudaFree(nullptr);  // the device's context
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
  if (!part.open(device, properties.multiProcessorCount, why, why_bytes)) return nullptr;
  if (status = part.make_stream(&stream); status != cudaSuccess) {
    std::snprintf(why, why_bytes, "%s", cudaGetErrorString(status));
    return nullptr;
  }
  std::snprintf(name, sizeof name, "%s%s", properties.name, part.told().c_str());
  std::snprintf(kind, sizeof kind, "sm_%d%d", properties.major, properties.minor);
  for (int i = 0; i < 16; ++i)
    std::snprintf(id + 2 * i, 3, "%02x", static_cast<unsigned>(static_cast<unsigned char>(properties.uuid.bytes[i])));
  ops = runahead::cuda::make_ops(name, kind, id);
  std::string no_library;
  if (add_library_gemm({ops, stream, part.multiprocessors(properties.multiProcessorCount)}, ops, runahead::cuda::note,
                       no_library))
    return &ops;
  std::snprintf(why, why_bytes, "%s", no_library.c_str());
  return nullptr;
}
