// HopFrame: what the two ends of a hop between devices tell each other over TCP, 72 bytes a frame (docs/wire.md). The pages
// themselves travel beside it, by NCCL, in the order in which they are announced here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace runahead {

inline constexpr size_t kHopBodyBytes = 64;
inline constexpr size_t kHopFrameBytes = 8 + kHopBodyBytes;
using HopBody = std::array<std::byte, kHopBodyBytes>;

// Values are the wire's; new ones are added at the end.
enum class HopFrameKind : uint32_t {
  kOpen = 1,  // receiver: a stream of this number; the body is its StreamHello
  kReply = 2,  // either: a StreamReply or layers that are open now, 4 bytes
  kPage = 3,  // sender: the next page that NCCL moves; the body is its KvPageHeader
  kClose = 4,  // either: this end of the stream is closed
  kIdFirst = 5,  // sender, once, before its first page: the first and
  kIdLast = 6,  // the last half of NCCL's unique id
};

struct HopFrame {
  HopFrameKind kind = HopFrameKind::kClose;
  uint32_t stream = 0;  // chosen by the receiver, never twice on a hop; 0 for the unique id
  HopBody body{};  // zeros behind what is said
};

std::array<std::byte, kHopFrameBytes> encode(const HopFrame& frame);
// kCorrupt for a kind that there is not.
Result<HopFrame> parse_hop_frame(std::span<const std::byte, kHopFrameBytes> bytes);

}  // namespace runahead
