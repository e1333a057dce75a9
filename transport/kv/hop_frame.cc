#include "transport/kv/hop_frame.h"

#include <algorithm>

#include "transport/little_endian.h"

namespace runahead {

std::array<std::byte, kHopFrameBytes> encode(const HopFrame& frame) {
  std::array<std::byte, kHopFrameBytes> bytes;
  store_le<uint32_t>(bytes.data(), static_cast<uint32_t>(frame.kind));
  store_le<uint32_t>(&bytes[4], frame.stream);
  store_le<uint64_t>(&bytes[8], frame.at);
  std::ranges::copy(frame.body, &bytes[16]);
  return bytes;
}

Result<HopFrame> parse_hop_frame(std::span<const std::byte, kHopFrameBytes> bytes) {
  const auto kind = load_le<uint32_t>(bytes.data());
  if (kind < static_cast<uint32_t>(HopFrameKind::kOpen) || kind > static_cast<uint32_t>(HopFrameKind::kTaken))
    return fail(ErrorCode::kCorrupt, "a frame of a kind that there is not came on a hop");
  HopFrame frame{static_cast<HopFrameKind>(kind), load_le<uint32_t>(&bytes[4]), load_le<uint64_t>(&bytes[8]), {}};
  std::ranges::copy(bytes.subspan<16>(), frame.body.begin());
  return frame;
}

}  // namespace runahead
