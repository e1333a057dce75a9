// UCX's own ways: two lanes without a hop between them, and a peer on the hop that says what it may not.
#include "tests/transport/kv/hop_peer.h"
#include "tests/transport/kv/kv_fixture.h"
#include "transport/kv/ucx_lane.h"

// UCX 1.13.1 keeps 100 bytes of an endpoint whose peer's shared memory is gone when it connects (kv_shutdown_test.cc).
extern "C" const char* __lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier): LeakSanitizer's name
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libuct.so\n";
}  // NOLINT(bugprone-reserved-identifier)

namespace runahead {
namespace {

using namespace std::chrono_literals;

constexpr size_t kPage = 4096;

// The two ends of a lane, on one loop; introductions are carried over by hand.
class UcxLanes : public testing::Test {
 protected:
  void SetUp() override {
    setenv("UCX_TLS", "tcp,self", 1);
    context_ = *UcxContext::open(false);
    sender = std::make_unique<UcxLane>(context_, loop.executor(), nullptr);
    sender->start({.sends = true,
                   .on_introduction = [this](const LaneIntroduction& told) { of_sender = told; },
                   .on_failure = [this](const Error& why) { note("sender: " + std::string(name(why.code))); }});
    serve(*sender);
    run_until([&] { return !of_sender.empty(); });
  }
  void TearDown() override {
    for (const auto& lane : {sender.get(), receiver.get()})
      if (lane != nullptr) lane->abort();
    run_until([&] { return serving_ == 0; });
    for (const auto& lane : {sender.get(), receiver.get()})
      if (lane != nullptr) lane->stop();
  }
  void start_receiver(const LaneIntroduction& introduction) {
    receiver = std::make_unique<UcxLane>(context_, loop.executor(), &introduction);
    receiver->start({.on_introduction = [this](const LaneIntroduction& told) { of_receiver = told; },
                     .on_failure = [this](const Error& why) { note("receiver: " + std::string(name(why.code))); }});
    serve(*receiver);
  }
  void meet() {
    start_receiver(of_sender);
    run_until([&] { return !of_receiver.empty(); });
    expect_ok(sender->meet(of_receiver));
  }
  template <class Condition>
  void run_until(const Condition& condition, Duration bound = 5s) {
    const auto end = std::chrono::steady_clock::now() + bound;
    while (!condition() && std::chrono::steady_clock::now() < end) {
      loop.io().restart();
      loop.io().run_one_for(10ms);
    }
    EXPECT_TRUE(condition());
  }
  HopLane::Done noting(std::string what) {
    return [this, what](const char* error, auto) { note(what + (error == nullptr ? "" : ": failed")); };
  }
  void note(const std::string& what) { told.push_back(what); }
  size_t times(const std::string& what) const { return static_cast<size_t>(std::ranges::count(told, what)); }

  RunLoop loop;
  std::unique_ptr<UcxLane> sender, receiver;
  LaneIntroduction of_sender, of_receiver;
  std::vector<std::string> told;

 private:
  void serve(UcxLane& lane) {
    ++serving_;
    asio::co_spawn(loop.io(), lane.serve(), [this](std::exception_ptr) { --serving_; });
  }

  std::shared_ptr<UcxContext> context_;
  int serving_ = 0;
};

TEST_F(UcxLanes, PagesGoToWhomTheyAreNumberedFor) {
  Pages from(1, 4, kPage), to(1, 4, kPage);
  from.fill(1);
  sender->send(from.at({0, 0}), noting("sent"));  // before the other end is there
  meet();
  run_until([&] { return sender->is_ready() && receiver->is_ready(); });
  for (const int32_t page : {1, 2, 3}) sender->send(from.at({0, page}), noting("sent"));
  loop.io().restart();
  loop.io().run_for(30ms);
  EXPECT_EQ(times("sent"), 0u) << "no page goes before its buffer is there";
  for (const int32_t page : {0, 1}) receiver->receive(to.at({0, page}), 0, noting("received"));
  receiver->discard(kPage, noting("dropped"));
  receiver->receive(to.at({0, 3}), 0, noting("received"));
  run_until([&] { return times("sent") == 4 && times("received") == 3 && times("dropped") == 1; });
  for (const int32_t page : {0, 1, 3}) EXPECT_TRUE(std::ranges::equal(from.at({0, page}), to.at({0, page}))) << page;
  EXPECT_EQ(to.at({0, 2})[0], std::byte{0});
  receiver->receive(to.at({0, 2}), 0, noting("later"));
  receiver->discard(kPage, noting("later"));
  for (const int32_t page : {2, 0}) sender->send(from.at({0, page}), noting("sent"));
  run_until([&] { return times("later") == 2 && times("sent") == 6; });
  EXPECT_TRUE(std::ranges::equal(from.at({0, 2}), to.at({0, 2})));
}

TEST_F(UcxLanes, APageOfAnotherLengthEndsTheLaneWhicheverComesFirst) {
  for (const bool asked_first : {true, false}) {
    Pages from(1, 1, kPage), to(1, 1, 2 * kPage);
    meet();
    if (asked_first) receiver->receive(to.at({0, 0}), 0, noting("received"));
    sender->send(from.at({0, 0}), noting("sent"));
    if (!asked_first) {
      loop.io().restart();
      loop.io().run_for(30ms);
      receiver->receive(to.at({0, 0}), 0, noting("received"));
    }
    run_until([&] { return times("receiver: corrupt") == 1 && times("received: failed") == 1; });
    TearDown();
    receiver.reset();
    of_sender.clear(), of_receiver.clear(), told.clear();
    SetUp();
  }
}

TEST_F(UcxLanes, AnAddressThatIsNoneReachesNoUcx) {
  of_sender.back() ^= std::byte{1};
  start_receiver(of_sender);
  run_until([&] { return times("receiver: corrupt") == 1; });
  for (const LaneIntroduction& bad : {LaneIntroduction(3), LaneIntroduction(64), of_sender})
    expect_code(sender->meet(bad), ErrorCode::kCorrupt);
}

TEST_F(UcxLanes, AnEndAnswersWhatIsUnderWayAndWhatIsAskedLater) {
  Pages from(1, 3, kPage), to(1, 3, kPage);
  meet();
  for (const int32_t page : {0, 1, 2}) sender->send(from.at({0, page}), noting("sent"));
  receiver->receive(to.at({0, 0}), 0, noting("received"));
  run_until([&] { return times("received") == 1; });
  receiver->abort();
  receiver->receive(to.at({0, 1}), 0, noting("received"));
  run_until([&] { return times("received: failed") == 1; });
  sender->abort();
  run_until([&] { return times("sent") + times("sent: failed") == 3; });
  EXPECT_GE(times("sent: failed"), 1u);
  sender->send(from.at({0, 0}), noting("late"));
  EXPECT_EQ(times("late: failed"), 1u);
}

TEST_F(UcxLanes, StopNeedsNoLoop) {
  Pages from(1, 2, 1 << 20), to(1, 2, 1 << 20);
  meet();
  for (const int32_t page : {0, 1}) sender->send(from.at({0, page}), noting("sent"));
  receiver->receive(to.at({0, 0}), 0, noting("received"));
  run_until([&] { return receiver->is_ready(); });
  receiver->stop();
  sender->stop();
  EXPECT_EQ(times("sent") + times("sent: failed"), 2u);
  EXPECT_EQ(times("received") + times("received: failed"), 1u);
}

class UcxTest : public KvTest {
 protected:
  UcxTest() { connect_timeout = transfer_timeout = 2s; }
};

TEST_P(UcxTest, APeerWhoseIntroductionIsNoneIsCutOffAndTheNextOneServed) {
  Pages from(1, 1, kPage), to(1, 1, kPage);
  from.fill(1);
  auto sender = make(from.data), receiver = make(to.data);
  const KvAddress address = *parse_kv_address(sender->address(), kv_transport_of(sender->address()));
  const auto introduction = [](uint64_t total) { return HopFrame{HopFrameKind::kIntroduction, 0, total, {}}; };
  const std::vector<std::vector<HopFrame>> bad = {{introduction(64)},  // all of it, and no address
                                                  {introduction(65), introduction(65)},
                                                  {introduction(0)},
                                                  {introduction(kLaneIntroductionBytesMax + 1)},
                                                  {introduction(128), introduction(64)}};
  for (uint32_t i = 0; i < bad.size(); ++i) {
    const AttemptId attempt{9, i, 1};
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, attempt)));
    const StreamHello hello{attempt, kToken, address.incarnation, {1, 1, kPage}, 1};
    bool closed = false;
    EXPECT_GT(answers_to(loop, address, {frame_of(HopFrameKind::kOpen, 1, encode(hello))}, &closed).size(),
              kPreambleBytes + 2 * kHopFrameBytes)
        << "a reply and an address";
    auto again = std::move(*sender->open_outbound(outbound(from, *receiver, {9, i, 2})));
    StreamHello second = hello;
    second.attempt = {9, i, 2};
    std::vector<HopFrame> frames = bad[i];
    frames.insert(frames.begin(), frame_of(HopFrameKind::kOpen, 1, encode(second)));
    answers_to(loop, address, frames, &closed);
    EXPECT_TRUE(closed) << i;
    loop.run(out->close());
    loop.run(again->close());
  }
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, {1, 1, 1})));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, {1, 1, 1})));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  const auto take = [](KvInbound* stream, RunLoop* l) -> asio::awaitable<void> {
    expect_ok(co_await take_all(stream, 1, l->in(5s)));
  };
  loop.run(take(in.get(), &loop));
  EXPECT_TRUE(from.data == to.data);
  loop.run(in->close());
  loop.run(out->close());
  loop.run(sender->shutdown());
  loop.run(receiver->shutdown());
}

INSTANTIATE_TEST_SUITE_P(Kv, UcxTest, testing::Values("ucx:tcp,self"), param_name);

}  // namespace
}  // namespace runahead
