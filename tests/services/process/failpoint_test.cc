// Failpoints: what is not one is refused in a sentence; a boundary is passed before and behind its message; the N-th time counts.
#include <csignal>

#include "actors/messages.h"
#include "services/process/failpoint_planes.h"
#include "tests/support/loop.h"
#include "transport/control/memory_control.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;
using When = Failpoint::When;
using Way = Failpoint::Way;

std::shared_ptr<Failpoint> failpoint(std::string_view text) {
  auto parsed = Failpoint::parse(text);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return std::make_shared<Failpoint>(std::move(*parsed));
}

TEST(Failpoint, WhatIsNoneIsRefusedInASentence) {
  for (const char* text :
       {"kill", "prefill.hello=kill", "prefill.hello.before", "gateway.hello.before=kill", "prefill.hallo.before=kill",
        "prefill.hello.during=kill", "prefill.hello.before-twice=kill", "prefill.hello.before=die",
        "prefill.hello.before=kill@0", "prefill.hello.before=kill@", "prefill.hello.before=kill@x",
        "prefill.hello.before=kill:5", "prefill.hello.before=sleep",
        "prefill.hello.before=sleep:", "prefill.hello.before=sleep:-1", "prefill.hello.before=sleep:10000000"}) {
    const auto parsed = Failpoint::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidConfig) << text;
    EXPECT_NE(parsed.error().message.find(text), std::string::npos) << parsed.error().message;
  }
}

TEST(Failpoint, OfEveryMessageThereIsOne) {
  EXPECT_EQ(message_names().size(), 17u);
  for (const std::string_view name : message_names())
    EXPECT_EQ(failpoint("decode." + std::string(name) + ".after-sent=sleep:5@3")->role(), "decode");
  proto::Envelope last = envelope({.epoch = 1, .request = 2, .attempt = 3});
  last.mutable_attempt_ended();
  EXPECT_EQ(message_name(serialize(last)), "attempt_ended");
  EXPECT_EQ(message_name("no envelope"), "");
}

TEST(Failpoint, TheNthPassingOfItsOwnBoundaryIsHit) {
  const auto point = failpoint("prefill.kv_page.before-sent=stop@2");
  EXPECT_FALSE(point->hit("kv_page", When::kAfter, Way::kSent));
  EXPECT_FALSE(point->hit("kv_page", When::kBefore, Way::kReceived));
  EXPECT_FALSE(point->hit("kv_end", When::kBefore, Way::kSent));
  EXPECT_FALSE(point->hit("kv_page", When::kBefore, Way::kSent));
  EXPECT_TRUE(point->hit("kv_page", When::kBefore, Way::kSent));
  EXPECT_FALSE(point->hit("kv_page", When::kBefore, Way::kSent)) << "once";
}

std::string heartbeat() {
  proto::Envelope message = envelope({.epoch = 1});
  message.mutable_heartbeat();
  return serialize(message);
}

// The server sends one heartbeat to a client behind the failpoint, which takes it and asks for the next event.
void receive_one(const std::string& text) {
  Loop loop;
  MemoryControlHub hub(loop.io.get_executor(), loop.clock);
  ControlPlane& server = hub.server();
  const auto client = with_failpoint(hub.connect(), failpoint(text), loop.io.get_executor(), loop.clock);
  server.send(hub.last_peer(), heartbeat());
  for (int i = 0; i < 3; ++i) (void)loop.run(client->receive(loop.clock.after(20ms)));
}

TEST(FailpointPlanesDeathTest, AProcessDiesAroundAMessageThatItReceives) {
  EXPECT_EXIT(receive_one("decode.heartbeat.before=kill"), testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(receive_one("decode.heartbeat.after=kill"), testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT((receive_one("decode.heartbeat.before-sent=kill"), std::exit(0)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT((receive_one("decode.heartbeat.before=kill@2"), std::exit(0)), testing::ExitedWithCode(0), "");
}

// What the other end has of one message when the sender is to sleep for long before it, or behind it.
bool arrives(const std::string& text, Duration within) {
  Loop loop;
  MemoryControlHub hub(loop.io.get_executor(), loop.clock);
  ControlPlane& server = hub.server();
  const auto client = with_failpoint(hub.connect(), failpoint(text), loop.io.get_executor(), loop.clock);
  const PeerId peer = loop.run(client->receive(loop.clock.after(1s)))->peer;
  (void)loop.run(server.receive(loop.clock.after(1s)));
  const Time begin = loop.clock.now();
  client->send(peer, heartbeat());
  const auto event = loop.run(server.receive(loop.clock.after(1s)));
  return event && event->kind == ControlEvent::Kind::kMessage && loop.clock.now() - begin < within;
}

TEST(FailpointPlanes, BehindAMessageItHasLeft) {
  EXPECT_FALSE(arrives("decode.heartbeat.before=sleep:300", 200ms));
  EXPECT_TRUE(arrives("decode.heartbeat.after=sleep:300", 200ms));
}

}  // namespace
}  // namespace runahead::test
