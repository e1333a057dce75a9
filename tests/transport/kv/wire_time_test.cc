#include <gtest/gtest.h>

#include "transport/kv/kv_ledger.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

// Pages of 1 MB at 100 MB/s, `together` at once, with a pause before the next ones.
WireTime sent(int bursts, int together, Duration pause) {
  WireTime wire;
  Time now{1s};
  for (int burst = 0; burst < bursts; ++burst, now += pause) {
    for (int page = 0; page < together; ++page) wire.begin(now);
    for (int page = 0; page < together; ++page) wire.end(now += 10ms, 1'000'000);
  }
  return wire;
}

TEST(WireTime, IsThatOfTheBytesWithoutThePauses) {
  EXPECT_EQ(sent(2, 10, 1s).of(20'000'000), 200ms);
  EXPECT_EQ(sent(1, 10, 0s).of(20'000'000), 200ms) << "of all bytes, though half of them went in short stretches";
  EXPECT_EQ(sent(3, 1, 5s).of(3'000'000), std::nullopt) << "30 ms are too short";
  EXPECT_EQ(sent(4, 1, 5s).of(4'000'000), 40ms);
}

TEST(WireTime, ManyShortStretchesMeasureEventLoopsAndNotTheWire) {
  WireTime wire;
  Time now{1s};
  for (int i = 0; i < 1000; ++i, now += 1ms) {
    wire.begin(now);
    wire.end(now += 3ms, 50'000);
  }
  EXPECT_EQ(wire.of(50'000'000), std::nullopt);
}

TEST(WireTime, WhatWaitsForItsWayIsNotOnTheWire) {
  using namespace std::chrono_literals;
  WireTime wire;
  wire.begin(0s);
  wire.restart(1s);  // the way stands
  wire.end(1s + 50ms, 1000);
  ASSERT_TRUE(wire.of(1000).has_value());
  EXPECT_NEAR(seconds(*wire.of(1000)), 0.05, 1e-9);
}

}  // namespace
}  // namespace runahead
