// HopFrame: what the two ends of a hop tell each other over TCP, 96 bytes a frame (docs/wire.md). The pages themselves travel
// beside it, by a HopLane, and are named by the order in which they are announced here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace runahead {

inline constexpr size_t kHopBodyBytes = 80;
inline constexpr size_t kHopFrameBytes = 16 + kHopBodyBytes;
using HopBody = std::array<std::byte, kHopBodyBytes>;

// Values are the wire's; new ones are added at the end.
enum class HopFrameKind : uint32_t {
  kOpen = 1,  // receiver: a stream of this number; the body is its StreamHello
  kReply = 2,  // either: a StreamReply or layers that are open now, 4 bytes
  kPage = 3,  // sender: the next page; the body is its KvPageHeader, `at` where the receiver of a pulled lane finds it
  kClose = 4,  // either: this end of the stream is closed
  kIntroduction =
      5,  // the next 80 bytes of `at`: the lane's introduction, of the sender before its first page, then of a UCX receiver
  kTaken = 6,  // receiver of a pulled lane: it reads page number `at` no more, counted from 1 on this hop
};

struct HopFrame {
  HopFrameKind kind = HopFrameKind::kClose;
  uint32_t stream = 0;  // chosen by the receiver, never twice on a hop; 0 for kinds 5 and 6
  uint64_t at = 0;
  HopBody body{};  // zeros behind what is said
};

std::array<std::byte, kHopFrameBytes> encode(const HopFrame& frame);
// kCorrupt for a kind that there is not.
Result<HopFrame> parse_hop_frame(std::span<const std::byte, kHopFrameBytes> bytes);

}  // namespace runahead
