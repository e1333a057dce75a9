#include "transport/kv/ipc_lane.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "transport/little_endian.h"

namespace runahead {
namespace {

// The introduction: a handle, the pool's size, and the device's id with zeros behind.
constexpr size_t kAtBytes = sizeof(DeviceHandle), kAtId = kAtBytes + sizeof(uint64_t);
constexpr size_t kIntroductionBytes = 128;
static_assert(kAtId + kDeviceIdBytesMax < kIntroductionBytes);

}  // namespace

IpcLane::IpcLane(DeviceAccess device, std::span<std::byte> pool, const LaneIntroduction* introduction)
    : DeviceLane(device.make_stream),
      device_(std::move(device)),
      pool_(introduction == nullptr ? pool : std::span<std::byte>()) {
  if (introduction != nullptr) introduction_ = *introduction;
  RUNAHEAD_CHECK(device_.id.size() <= kDeviceIdBytesMax, "a device's id is short");
}

void IpcLane::leave() {
  if (!sends() && pool_.data() != nullptr) device_.close_shared(pool_.data());
}

uint64_t IpcLane::place_of(std::span<const std::byte> page) const {
  const auto at = reinterpret_cast<uintptr_t>(page.data()), begin = reinterpret_cast<uintptr_t>(pool_.data());
  RUNAHEAD_CHECK(at >= begin && at - begin <= pool_.size() - page.size(), "a page of the pool that was registered");
  return at - begin;
}

DeviceLane::Outcome IpcLane::connect() {
  if (sends()) return tell();
  if (introduction_.size() != kIntroductionBytes)
    return fail(ErrorCode::kCorrupt, "the peer's introduction is not one of ipc");
  const auto* id = reinterpret_cast<const char*>(&introduction_[kAtId]);
  const std::string theirs(id, strnlen(id, introduction_.size() - kAtId));
  if (theirs != device_.id)
    return fail(ErrorCode::kUnsupported, "ipc is for two workers on one GPU, and these have two: use --transport nccl");
  DeviceHandle handle;
  std::copy_n(introduction_.begin(), handle.size(), handle.begin());
  pool_ = TRY(device_.open_shared(handle));
  const auto told = load_le<uint64_t>(&introduction_[kAtBytes]);
  if (told > pool_.size()) return fail(ErrorCode::kCorrupt, "the peer's pool is smaller than it says");
  pool_ = pool_.first(told);
  return {};
}

DeviceLane::Outcome IpcLane::tell() {
  const DeviceHandle handle = TRY(device_.share(pool_.data()));
  introduction_.resize(kIntroductionBytes);
  std::ranges::copy(handle, introduction_.begin());
  store_le<uint64_t>(&introduction_[kAtBytes], pool_.size());
  std::ranges::copy(std::as_bytes(std::span(device_.id)), introduction_.begin() + kAtId);
  introduce(introduction_);
  return {};
}

DeviceLane::Outcome IpcLane::move(const Job& job, std::byte* page, DeviceStream& stream) {
  if (job.at > pool_.size() || job.bytes > pool_.size() - job.at)
    return fail(ErrorCode::kCorrupt, "the peer announces a page that lies outside of its pool");
  stream.copy(page, pool_.data() + job.at, job.bytes);
  return {};
}

}  // namespace runahead
