#include "model/cuda_transformer/page_copies.h"

#include <chrono>
#include <memory>
#include <semaphore>

namespace runahead {

PageCopies::~PageCopies() {
  if (stream_ != nullptr) ops_.free_stream(stream_);
}

void PageCopies::begin() {
  if (stream_ == nullptr) stream_ = ops_.make_stream();
  RUNAHEAD_CHECK(stream_ != nullptr, "the device failed: it makes no stream");
  ops_.follow(stream_);
}

void PageCopies::copy(void* host, const std::byte* device, size_t bytes) {
  ops_.to_host_on(stream_, host, device, bytes);
}

void PageCopies::copy(void* host, const cuda::RepackArgs& repack, size_t bytes) {
  ops_.repack_on(stream_, repack);
  ops_.to_host_on(stream_, host, repack.to, bytes);
}

void PageCopies::when_done(std::function<void()> call) {
  if (stream_ == nullptr) return call();
  ops_.use_device();
  auto kept = std::make_unique<std::function<void()>>(std::move(call));
  ops_.call_on(
      stream_,
      [](void* with) { (*std::unique_ptr<std::function<void()>>(static_cast<std::function<void()>*>(with)))(); },
      kept.release());
}

void PageCopies::wait() {
  if (stream_ == nullptr || ops_.error() != nullptr) return;
  std::binary_semaphore done(0);
  when_done([&] { done.release(); });
  while (!done.try_acquire_for(std::chrono::seconds(1))) RUNAHEAD_CHECK(ops_.error() == nullptr, ops_.error());
}

}  // namespace runahead
