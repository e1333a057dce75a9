// DeviceAccess: a device, as far as whoever moves pages in its memory needs it. Empty where there is none.
// DeviceStream: work on it beside its computing, in order. Made over the op table of a GPU
// (model/cuda_transformer/cuda_stream.h); tests have one of threads (tests/transport/kv/device_stream_double.h).
//   threads  the one that made it.
//   memory   spans are of the device, unless they say otherwise.
//   limits   kTicketsMax tickets that are not done, or of which result() was not asked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace runahead {

class DeviceStream {
 public:
  static constexpr size_t kTicketsMax = 64;
  using Ticket = uint64_t;

  virtual ~DeviceStream() = default;  // when nothing of it is under way any more
  // What a library of the device calls it, for work of its own.
  virtual void* handle() = 0;
  // Done when all is that was asked for before.
  virtual Ticket ticket() = 0;
  // The same, and result() is the CRC32C of these bytes as they are then: a page, a multiple of 16 bytes long.
  virtual Ticket checksum(std::span<const std::byte> page) = 0;
  virtual void copy(std::byte* to, const std::byte* from, size_t bytes) = 0;
  virtual bool is_done(Ticket ticket) = 0;
  virtual uint32_t result(Ticket ticket) = 0;  // of one that is done; once, for every ticket
  // Memory for bytes that nobody wants.
  virtual Result<std::span<std::byte>> scratch(size_t bytes) = 0;
};

// Called on the thread that the stream is for. kUnavailable: the device has failed.
using MakeDeviceStream = std::function<Result<std::unique_ptr<DeviceStream>>()>;

// What another process needs to have an allocation of this one.
using DeviceHandle = std::array<std::byte, 64>;

struct DeviceAccess {
  std::string id;  // the same for two processes on one device, and for no others; at most kDeviceIdBytesMax
  MakeDeviceStream make_stream;
  // From any thread. kUnsupported: this memory, or this device, cannot be shared.
  std::function<Result<DeviceHandle>(std::byte* allocation)> share;
  std::function<Result<std::span<std::byte>>(const DeviceHandle& handle)> open_shared;  // all of it
  std::function<void(std::byte* opened)> close_shared;
  explicit operator bool() const { return static_cast<bool>(make_stream); }
};
inline constexpr size_t kDeviceIdBytesMax = 47;

}  // namespace runahead
