// A lane's end, step by step: what it answers when its way fails, and what is asked of it from within an answer.
#include "transport/kv/device_lane.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tests/transport/kv/device_stream_double.h"

namespace runahead {
namespace {

class LaneThatFails final : public DeviceLane {
 public:
  LaneThatFails() : DeviceLane(device_double().make_stream) {}

 private:
  Outcome connect() override {
    introduce({});
    return fail(ErrorCode::kUnsupported, "no way");
  }
  Outcome move(const Job&, std::byte*, DeviceStream&) override { return {}; }
};

// The introduction and the end come in one complete(), or in two: what the first asks for is answered all the same.
TEST(DeviceLane, WhatIsAskedFromWithinTheLastAnswerIsAnswered) {
  for (const int pause_ms : {0, 20}) {
    LaneThatFails lane;
    std::vector<std::string> told;
    const std::vector<std::byte> page(64);
    const auto note = [&](const char* error, auto) { told.emplace_back(error == nullptr ? "done" : error); };
    lane.start({.on_introduction = [&](const LaneIntroduction&) { lane.checksum(page, note); },
                .on_failure = [&](const Error& why) { told.push_back(why.message); }});
    std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
    for (int i = 0; i < 1000 && !lane.has_ended(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      lane.complete();
    }
    ASSERT_TRUE(lane.has_ended());
    lane.stop();
    ASSERT_EQ(told.size(), 2u) << pause_ms;
    EXPECT_EQ(std::ranges::count(told, "no way"), 1);
    EXPECT_EQ(std::ranges::count(told, "the connection between the devices has ended"), 1);
  }
}

}  // namespace
}  // namespace runahead
