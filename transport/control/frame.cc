#include "transport/control/frame.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "transport/little_endian.h"

namespace runahead {
namespace {

constexpr std::string_view kMagic = "RNHD";

}  // namespace

std::array<std::byte, kPreambleBytes> encode_preamble(Plane plane) {
  std::array<std::byte, kPreambleBytes> bytes{};
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  bytes[4] = static_cast<std::byte>(plane);
  store_le<uint16_t>(&bytes[6], kFrameVersion);
  return bytes;
}

Result<void> check_preamble(std::span<const std::byte, kPreambleBytes> bytes, Plane expected) {
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    return fail(ErrorCode::kIncompatible, "the peer does not speak Runahead's protocol: check host and port");
  if (bytes[4] != static_cast<std::byte>(expected) || bytes[5] != std::byte{0})
    return fail(ErrorCode::kIncompatible, expected == Plane::kControl
                                              ? "the peer's port is not a control port: check host and port"
                                              : "the peer's port is not a data port: check host and port");
  const uint16_t version = load_le<uint16_t>(&bytes[6]);
  if (version != kFrameVersion)
    return fail(ErrorCode::kIncompatible, "the peer speaks protocol version " + std::to_string(version) + ", this is " +
                                              std::to_string(kFrameVersion) + ": install the same release on both");
  return {};
}

std::string encode_frame(std::string_view payload) {
  RUNAHEAD_CHECK(!payload.empty() && payload.size() <= limits::kControlFrameBytesMax, "frame size out of bounds");
  std::array<std::byte, kFrameLengthBytes> length;
  store_le<uint32_t>(length.data(), static_cast<uint32_t>(payload.size()));
  std::string frame;
  frame.reserve(kFrameLengthBytes + payload.size());
  frame.append(reinterpret_cast<const char*>(length.data()), length.size());
  frame.append(payload);
  return frame;
}

Result<void> FrameParser::feed(std::span<const std::byte> bytes, std::vector<std::string>& frames) {
  while (!bytes.empty()) {
    if (length_have_ < kFrameLengthBytes) {
      const size_t take = std::min(kFrameLengthBytes - length_have_, bytes.size());
      std::memcpy(length_.data() + length_have_, bytes.data(), take);
      length_have_ += take;
      bytes = bytes.subspan(take);
      if (length_have_ < kFrameLengthBytes) return {};
      payload_bytes_ = load_le<uint32_t>(length_.data());
      if (payload_bytes_ == 0) return fail(ErrorCode::kCorrupt, "the peer sent an empty frame");
      if (payload_bytes_ > frame_bytes_max_)
        return fail(ErrorCode::kTooLarge, "the peer announced a frame of " + std::to_string(payload_bytes_) +
                                              " bytes, over the limit of " + std::to_string(frame_bytes_max_));
    }
    const size_t take = std::min<size_t>(payload_bytes_ - payload_.size(), bytes.size());
    payload_.append(reinterpret_cast<const char*>(bytes.data()), take);
    bytes = bytes.subspan(take);
    if (payload_.size() == payload_bytes_) {
      frames.push_back(std::exchange(payload_, {}));
      length_have_ = 0;
    }
  }
  return {};
}

}  // namespace runahead
