// NcclLane: pages by a communicator of two: one end sends, the other receives. Calls do not block, and are awaited.
#pragma once

#include "transport/kv/device_lane.h"
#include "transport/kv/nccl_api.h"

namespace runahead {

class NcclLane final : public DeviceLane {
 public:
  // introduction: of the receiving end, what the sending one has told.
  NcclLane(const NcclApi& api, MakeDeviceStream make_stream, const LaneIntroduction* introduction);

 private:
  Outcome connect() override;
  Outcome move(const Job& job, std::byte* page, DeviceStream& stream) override;
  Outcome check() override;
  // Abort, not destroy, which would wait for the peer.
  void disconnect() override;
  Outcome await(int state);  // of the last call
  std::unexpected<Error> error(const char* what, int state) const;

  const NcclApi& api_;
  NcclUniqueId id_{};
  bool introduced_ = false;  // of the receiving end: the sender's id has come
  NcclComm comm_ = nullptr;
};

}  // namespace runahead
