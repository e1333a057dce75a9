#include "simt_ops.h"

#include <cstdlib>
#include <type_traits>

#include "kernels/cuda/launches.cuh"

namespace runahead::cuda {

template <class Args>
void start(void (*kernel)(Args), Grid grid, int threads, const Args& args) {
  simt::launch({static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z)},
               static_cast<unsigned>(threads), [&] { kernel(args); });
}

const CudaOps& simt_ops() {
  static const CudaOps ops = [] {
    CudaOps made{.device = "emulation"};
    made.allocate = [](size_t bytes) { return std::aligned_alloc(256, (bytes + 255) / 256 * 256); };
    made.release = std::free;
    made.to_device = made.to_host =
        made.copy = [](void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); };
    made.clear = [](void* device, size_t bytes) { std::memset(device, 0, bytes); };
    made.finish = [] {};
    made.error = []() -> const char* { return nullptr; };
    add_kernels(made);
    return made;
  }();
  return ops;
}

}  // namespace runahead::cuda
