// DeviceStreamDouble: a DeviceStream over a thread, for memory of the host; device_double(): the device of such streams, whose
// memory is shared with nobody but this process.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/crc32c.h"
#include "base/device_stream.h"
#include "tests/support/stream_double.h"

namespace runahead {

class DeviceStreamDouble final : public DeviceStream {
 public:
  void* handle() override { return &stream_; }
  Ticket ticket() override { return checksum({}); }
  Ticket checksum(std::span<const std::byte> page) override {
    const Ticket ticket = ++last_;
    stream_.enqueue([this, page, ticket] {
      const uint32_t crc = crc32c(page);
      const std::lock_guard lock(mutex_);
      results_[ticket] = crc;
    });
    return ticket;
  }
  void copy(std::byte* to, const std::byte* from, size_t bytes) override {
    stream_.enqueue([=] { std::memcpy(to, from, bytes); });
  }
  bool is_done(Ticket ticket) override {
    const std::lock_guard lock(mutex_);
    return !results_.empty() && results_.rbegin()->first >= ticket;
  }
  uint32_t result(Ticket ticket) override {
    const std::lock_guard lock(mutex_);
    const uint32_t crc = results_.at(ticket);
    if (results_.size() > 1) results_.erase(ticket);  // the newest says how far the stream is
    return crc;
  }
  Result<std::span<std::byte>> scratch(size_t bytes) override {
    scratch_.emplace_back(bytes);  // never moved: an earlier one may be written still
    return std::span(scratch_.back());
  }

 private:
  std::mutex mutex_;
  std::map<Ticket, uint32_t> results_;
  Ticket last_ = 0;
  std::deque<std::vector<std::byte>> scratch_;
  StreamDouble stream_;  // its thread ends before what it writes to
};

inline DeviceAccess device_double() {
  return {
      .id = "double",
      .make_stream = []() -> Result<std::unique_ptr<DeviceStream>> { return std::make_unique<DeviceStreamDouble>(); },
      .share = [](std::byte* memory) -> Result<DeviceHandle> {
        DeviceHandle handle{};
        std::memcpy(handle.data(), static_cast<const void*>(&memory), sizeof memory);
        return handle;
      },
      .open_shared = [](const DeviceHandle& handle) -> Result<std::span<std::byte>> {
        std::byte* memory = nullptr;
        std::memcpy(static_cast<void*>(&memory), handle.data(), sizeof memory);
        return std::span(memory, SIZE_MAX / 2);
      },
      .close_shared = [](std::byte*) {}};
}

}  // namespace runahead
