// LaneOrder: a request's place on every lane, the same on all ranks of its chain, so that they work on the same request.
// Earliest due first, where a request is due kLaneStretch times its own service time after it came. Hence
//   equal requests  go in the order they came, one after the other: the mean TTFT of n of them is about half of what
//                   taking turns gives, and the last one is no later;
//   a short one     passes a long one that still has time, and costs it no more than it takes itself;
//   nobody starves  who is due first goes first: only what comes within kLaneStretch service times can pass, and of that
//                   only what is shorter. tests/actors/worker/lane_test.cc simulates both.
// Pure; decided once, when a request is first dispatched.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>

#include "base/clock.h"

namespace runahead {

struct LaneOrder {
  uint64_t due = 0;  // microseconds on the coordinator's clock; 0: before everybody
  uint64_t request = 0;  // decides between equals
  auto operator<=>(const LaneOrder&) const = default;
};

// How much later than alone a request may be because of shorter ones, in its own service times.
inline constexpr double kLaneStretch = 4;
// What even the longest service time may add: an odd estimate cannot put a request behind for good.
inline constexpr double kLaneStretchSecondsMax = 600;

// service_seconds: of the request alone on all workers.
inline LaneOrder lane_order(Time submitted, double service_seconds, uint64_t request) {
  const double grace = service_seconds > 0 ? std::min(kLaneStretch * service_seconds, kLaneStretchSecondsMax) : 0;
  const auto due = std::chrono::duration_cast<std::chrono::microseconds>(submitted + from_seconds(grace)).count();
  return {.due = static_cast<uint64_t>(std::max<int64_t>(due, 1)), .request = request};
}

}  // namespace runahead
