#include "model/cuda_transformer/cuda_stream.h"

#include <string>

#include "base/check.h"

namespace runahead {

DeviceAccess device_access(const cuda::CudaOps& ops) {
  DeviceAccess access{.id = ops.id, .make_stream = [&ops] { return CudaStream::make(ops); }};
  access.share = [&ops](std::byte* allocation) -> Result<DeviceHandle> {
    DeviceHandle handle;
    ops.use_device();
    if (!ops.share(allocation, handle.data()))
      return fail(ErrorCode::kUnsupported, "the device does not share its memory with another process");
    return handle;
  };
  access.open_shared = [&ops](const DeviceHandle& handle) -> Result<std::span<std::byte>> {
    ops.use_device();
    size_t bytes = 0;
    auto* opened = static_cast<std::byte*>(ops.open_shared(handle.data(), &bytes));
    if (opened == nullptr)
      return fail(ErrorCode::kUnsupported,
                  "the device's memory of another process cannot be had: is its container apart?");
    return std::span(opened, bytes);
  };
  access.close_shared = [&ops](std::byte* opened) {
    ops.use_device();
    ops.close_shared(opened);
  };
  return access;
}

Result<std::unique_ptr<DeviceStream>> CudaStream::make(const cuda::CudaOps& ops) {
  ops.use_device();
  std::unique_ptr<CudaStream> made(new CudaStream(ops));
  made->stream_ = ops.make_stream();
  made->slots_ = static_cast<Slot*>(ops.allocate_shared(kTicketsMax * sizeof(Slot)));
  for (void*& event : made->events_) event = ops.make_event();
  if (const char* error = ops.error()) return fail(ErrorCode::kUnavailable, "the device failed: " + std::string(error));
  if (made->slots_ == nullptr)
    return fail(ErrorCode::kOverloaded, "there is no memory left that a device can use, too");
  return made;
}

CudaStream::~CudaStream() {
  if (stream_ != nullptr) ops_.free_stream(stream_);
  for (void* event : events_)
    if (event != nullptr) ops_.free_event(event);
  if (slots_ != nullptr) ops_.release_shared(slots_);
  if (!scratch_.empty()) ops_.release_apart(scratch_.data());
}

void CudaStream::check_device() const {
  const char* error = ops_.error();
  RUNAHEAD_CHECK(error == nullptr, error);
}

DeviceStream::Ticket CudaStream::ticket() {
  const Ticket ticket = ++last_;
  ops_.record(events_[slot_of(ticket)], stream_);
  check_device();
  return ticket;
}

DeviceStream::Ticket CudaStream::checksum(std::span<const std::byte> page) {
  Slot& slot = slots_[slot_of(last_ + 1)];
  slot.page = reinterpret_cast<const uint8_t*>(page.data());
  ops_.checksum_on(
      stream_, {.pages = &slot.page, .count = 1, .page_bytes = static_cast<int64_t>(page.size()), .out = &slot.crc32c});
  return ticket();
}

bool CudaStream::is_done(Ticket ticket) {
  RUNAHEAD_CHECK(ticket <= last_ && ticket + kTicketsMax > last_, "a ticket that is not over");
  const bool passed = ops_.has_passed(events_[slot_of(ticket)]);
  check_device();
  return passed;
}

uint32_t CudaStream::result(Ticket ticket) { return slots_[slot_of(ticket)].crc32c; }

// Rare: once for each size.
Result<std::span<std::byte>> CudaStream::scratch(size_t bytes) {
  if (scratch_.size() < bytes) {
    if (!scratch_.empty()) ops_.release_apart(scratch_.data());
    scratch_ = {static_cast<std::byte*>(ops_.allocate_apart(bytes)), bytes};
    if (scratch_.data() == nullptr) {
      scratch_ = {};
      return fail(ErrorCode::kOverloaded, "the device has no room for a page that nobody wants");
    }
  }
  return scratch_.first(bytes);
}

}  // namespace runahead
