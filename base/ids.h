// Identities that travel on both planes. A message is accepted only if epoch, request and attempt all match
// (docs/wire-control.md, "Fencing").
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace runahead {

using TokenId = int32_t;    // index into the model's vocabulary
using WorkerId = uint32_t;  // given by the coordinator at registration, from 1; never reused within an epoch

// One try to run one request. `epoch` grows with every coordinator start, `attempt` with every try (raft's term).
struct AttemptId {
  uint64_t epoch = 0;
  uint64_t request = 0;
  uint32_t attempt = 0;
  auto operator<=>(const AttemptId&) const = default;
};

// The capability of one hop in one attempt: who shows it opens that K/V stream. 128 random bits of the coordinator, which tells
// the two ends alone. Compared without a branch, so that the time says nothing about how much of a guess is right.
struct StreamToken {
  uint64_t high = 0, low = 0;
  bool operator==(const StreamToken& other) const { return ((high ^ other.high) | (low ^ other.low)) == 0; }
};

}  // namespace runahead

template <>
struct std::hash<runahead::AttemptId> {
  size_t operator()(const runahead::AttemptId& id) const noexcept {
    return (id.epoch * 0x9E3779B97F4A7C15ull) ^ (id.request * 0xC2B2AE3D27D4EB4Full) ^ id.attempt;
  }
};
