// CudaStream: a DeviceStream over the op table of a GPU, for transports of its pages.
//   threads  as DeviceStream: the one that made it.
//   failure  of the device stops the process, as in the engine: what it gives is no page of the model.
#pragma once

#include <array>

#include "base/device_stream.h"
#include "kernels/cuda/cuda_ops.h"

namespace runahead {

DeviceAccess device_access(const cuda::CudaOps& ops);

class CudaStream final : public DeviceStream {
 public:
  static Result<std::unique_ptr<DeviceStream>> make(const cuda::CudaOps& ops);
  ~CudaStream() override;

  void* handle() override { return stream_; }
  Ticket ticket() override;
  Ticket checksum(std::span<const std::byte> page) override;
  void copy(std::byte* to, const std::byte* from, size_t bytes) override { ops_.copy_on(stream_, to, from, bytes); }
  bool is_done(Ticket ticket) override;
  uint32_t result(Ticket ticket) override;
  Result<std::span<std::byte>> scratch(size_t bytes) override;

 private:
  // What a kernel reads and writes for one ticket, in memory that both sides see.
  struct Slot {
    const uint8_t* page;
    uint32_t crc32c;
  };

  explicit CudaStream(const cuda::CudaOps& ops) : ops_(ops) {}
  static size_t slot_of(Ticket ticket) { return ticket % kTicketsMax; }
  void check_device() const;

  const cuda::CudaOps& ops_;
  void* stream_ = nullptr;
  Slot* slots_ = nullptr;  // [kTicketsMax]
  std::array<void*, kTicketsMax> events_{};
  Ticket last_ = 0;
  std::span<std::byte> scratch_;
};

}  // namespace runahead
