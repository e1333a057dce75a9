#include "transport/kv/nccl_lane.h"

#include <cstring>

namespace runahead {
namespace {

constexpr auto kPoll = std::chrono::microseconds(200);

}  // namespace

NcclLane::NcclLane(const NcclApi& api, MakeDeviceStream make_stream, const LaneIntroduction* introduction)
    : DeviceLane(std::move(make_stream)), api_(api) {
  if (introduction == nullptr) return;
  introduced_ = introduction->size() == sizeof id_;
  if (introduced_) std::memcpy(&id_, introduction->data(), sizeof id_);
}

DeviceLane::Outcome NcclLane::connect() {
  if (sends()) {
    const int made = api_.get_unique_id(&id_);
    if (made != kNcclSuccess) return error("cannot start", made);
    LaneIntroduction introduction(sizeof id_);
    std::memcpy(introduction.data(), &id_, sizeof id_);
    introduce(introduction);
  } else if (!introduced_) {
    return fail(ErrorCode::kCorrupt, "the peer's introduction is not one of NCCL");
  }
  NcclConfig config;
  return await(api_.comm_init(&comm_, /*ranks=*/2, id_, sends() ? 0 : 1, &config));
}

DeviceLane::Outcome NcclLane::await(int state) {
  while (state == kNcclInProgress && comm_ != nullptr && !is_aborting()) {
    std::this_thread::sleep_for(kPoll);
    const int asked = api_.comm_state(comm_, &state);
    if (asked != kNcclSuccess) state = asked;
  }
  if (is_aborting()) return fail(ErrorCode::kCancelled, "the connection is ended");
  if (state != kNcclSuccess) return error("cannot reach the peer", state);
  return {};
}

DeviceLane::Outcome NcclLane::move(const Job& job, std::byte* page, DeviceStream& stream) {
  const int peer = sends() ? 1 : 0;
  return await(job.kind == Kind::kSend ? api_.send(page, job.bytes, kNcclUint8, peer, comm_, stream.handle())
                                       : api_.receive(page, job.bytes, kNcclUint8, peer, comm_, stream.handle()));
}

DeviceLane::Outcome NcclLane::check() {
  int state = kNcclSuccess;
  const int asked = api_.comm_state(comm_, &state);
  if (asked != kNcclSuccess || state != kNcclSuccess) return error("lost the peer", asked != 0 ? asked : state);
  return {};
}

void NcclLane::disconnect() {
  if (comm_ != nullptr) api_.comm_abort(comm_);
}

std::unexpected<Error> NcclLane::error(const char* what, int state) const {
  return std::unexpected(
      Error{ErrorCode::kWorkerLost, std::string("NCCL ") + what + ": " + api_.error_text(state), {}});
}

}  // namespace runahead
