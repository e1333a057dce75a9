// Framing of byte streams: a preamble once a connection, then frames of the control plane. Independent of sockets, so
// that it can be fuzzed (tests/fuzz/frame_fuzz.cc). Byte layouts: docs/wire.md.
//   preamble  8 bytes, sent by both ends at once: magic, plane, protocol version. A peer of another plane or version,
//             or no peer of ours at all, is refused before anything else is read.
//   frame     length (u32) and as many bytes of payload, 1 to kControlFrameBytesMax.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/result.h"

namespace runahead {

enum class Plane : uint8_t { kControl = 'C', kData = 'D' };

inline constexpr uint16_t kFrameVersion = 3;
inline constexpr size_t kPreambleBytes = 8;
inline constexpr size_t kFrameLengthBytes = 4;

std::array<std::byte, kPreambleBytes> encode_preamble(Plane plane);
// kIncompatible with a sentence that says what the peer seems to be.
Result<void> check_preamble(std::span<const std::byte, kPreambleBytes> bytes, Plane expected);

// The length and the payload, ready to be written. The payload has 1 to kControlFrameBytesMax bytes.
std::string encode_frame(std::string_view payload);

// Cuts a byte stream into frames. Holds at most one incomplete frame, and memory only for bytes that have come.
class FrameParser {
 public:
  explicit FrameParser(uint32_t frame_bytes_max = limits::kControlFrameBytesMax) : frame_bytes_max_(frame_bytes_max) {}
  // Of the frames whose length has not come yet.
  void allow(uint32_t frame_bytes_max) { frame_bytes_max_ = frame_bytes_max; }

  // Appends the payloads that `bytes` completes to `frames`. kTooLarge or kCorrupt: the stream cannot be read on.
  Result<void> feed(std::span<const std::byte> bytes, std::vector<std::string>& frames);

 private:
  uint32_t frame_bytes_max_;
  std::array<std::byte, kFrameLengthBytes> length_{};
  size_t length_have_ = 0;
  uint32_t payload_bytes_ = 0;  // of the frame under way
  std::string payload_;
};

}  // namespace runahead
