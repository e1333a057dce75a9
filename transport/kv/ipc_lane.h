// IpcLane: pages between two workers on one device. The receiver has the sender's pool by a handle of the driver, and copies each
// page from there; then it tells the sender, who may change it. Nothing leaves the device.
//   a lost sender   may write its page anew while the receiver still copies it: the page's CRC32C finds that.
#pragma once

#include "transport/kv/device_lane.h"

namespace runahead {

class IpcLane final : public DeviceLane {
 public:
  // introduction: of the receiving end, what the sending one has told. pool: of the sending end.
  IpcLane(DeviceAccess device, std::span<std::byte> pool, const LaneIntroduction* introduction);

  bool is_pulled() const override { return true; }
  uint64_t place_of(std::span<const std::byte> page) const override;

 private:
  Outcome connect() override;
  Outcome move(const Job& job, std::byte* page, DeviceStream& stream) override;
  void leave() override;
  Outcome tell();

  DeviceAccess device_;
  std::span<std::byte> pool_;  // the sender's: at the receiving end as it is opened there
  LaneIntroduction introduction_;
};

}  // namespace runahead
