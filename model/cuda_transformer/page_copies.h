// PageCopies: brings pages that a GPU has written to their twins on the host, on a stream of its own, while the GPU computes on.
//   threads  the engine's lane; when_done() from any.
//   owner    the engine. The pages of both sides outlive what is under way: the attempt that wrote them waits for it, and so does
//            the pool.
#pragma once

#include <functional>
#include <optional>

#include "kernels/ops.h"
#include "model/cuda_transformer/device_memory.h"

namespace runahead {

class PageCopies {
 public:
  explicit PageCopies(const cuda::CudaOps& ops) : ops_(ops) {}
  ~PageCopies();
  PageCopies(const PageCopies&) = delete;
  PageCopies& operator=(const PageCopies&) = delete;

  // What follows comes after all that the device has been asked so far.
  void begin();
  void copy(void* host, const std::byte* device, size_t bytes);
  // By way of the other form, which `repack` makes from the device's page.
  void copy(void* host, const cuda::RepackArgs& repack, size_t bytes);
  // When all of it is on the host: at once if there is none.
  void when_done(std::function<void()> call);
  void wait();  // until then

 private:
  const cuda::CudaOps& ops_;
  void* stream_ = nullptr;  // made when the first page is copied
};

}  // namespace runahead
