// Ends at every phase of a stream: a transport that shuts down, a stream that closes, a peer that starts again, while
// connections are made and pages are under way. A phase is a number of steps of the event loop.
#include <set>

#include "tests/transport/kv/kv_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

constexpr uint32_t kPhases = 100;

// A stream of four pages between two transports that have just been made.
struct Scene {
  Scene(uint64_t seed, size_t page_bytes) : from(2, 2, page_bytes), to(2, 2, page_bytes) { from.fill(seed); }
  Pages from, to;
  std::unique_ptr<KvTransport> sender, receiver;
  std::unique_ptr<KvOutbound> out;
  std::unique_ptr<KvInbound> in;
};

class KvShutdownTest : public KvTest {
 protected:
  KvShutdownTest() { connect_timeout = transfer_timeout = 800ms; }

  std::unique_ptr<Scene> open_scene(uint32_t phase) {
    auto scene = std::make_unique<Scene>(phase, phase % 2 == 0 ? 4096 : 1 << 20);
    scene->sender = make(scene->from.data);
    scene->receiver = make(scene->to.data);
    scene->out = std::move(*scene->sender->open_outbound(outbound(scene->from, *scene->receiver, {1, phase, 1})));
    scene->in = std::move(*scene->receiver->open_inbound(inbound(scene->to, *scene->sender, {1, phase, 1})));
    for (const KvPageKey key : scene->from.keys(phase)) scene->out->post(key, scene->from.at(key), std::nullopt);
    return scene;
  }
  void steps(uint32_t count) {
    loop.io().restart();
    for (uint32_t i = 0; i < count; ++i) loop.io().run_one_for(1ms);
  }
  void start(std::string what, asio::awaitable<void> work) {
    left_.insert(what);
    asio::co_spawn(loop.io(), std::move(work), [this, what](std::exception_ptr error) {
      left_.erase(what);
      if (error) std::rethrow_exception(error);
    });
  }
  // Until all that was started has ended.
  void finish(uint32_t phase) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!left_.empty() && std::chrono::steady_clock::now() < end) {
      loop.io().restart();
      loop.io().run_one_for(20ms);
    }
    ASSERT_TRUE(left_.empty()) << *left_.begin() << " hangs at phase " << phase << ", of " << left_.size();
  }

 private:
  std::set<std::string> left_;
};

TEST_P(KvShutdownTest, AtEveryPhaseBothEndsCloseWhileTheyShutDown) {
  for (uint32_t phase = 0; phase < kPhases; ++phase) {
    const auto s = open_scene(phase);
    steps(phase / 2);
    start("the sender's close", s->out->close());
    start("the receiver's close", s->in->close());
    start("the sender's shutdown", s->sender->shutdown());
    start("the receiver's shutdown", s->receiver->shutdown());
    finish(phase);
    if (HasFatalFailure()) return;
  }
}

asio::awaitable<void> take_four(KvInbound* stream, RunLoop* loop) {
  auto taken = co_await take_all(stream, 4, loop->in(10s));
  expect_ok(taken);
}

TEST_P(KvShutdownTest, AtEveryPhaseTheSenderLeavesAndItsSuccessorIsMet) {
  for (uint32_t phase = 0; phase < kPhases; ++phase) {
    const auto s = open_scene(phase);
    steps(phase / 2);
    start("the sender's close", s->out->close());
    start("the sender's shutdown", s->sender->shutdown());
    finish(phase);
    if (HasFatalFailure()) return;
    s->out.reset();
    s->sender.reset();
    start("the receiver's close", s->in->close());
    finish(phase);
    if (HasFatalFailure()) return;
    s->in.reset();
    auto restarted = make(s->from.data);
    auto out = std::move(*restarted->open_outbound(outbound(s->from, *s->receiver, {1, phase, 2})));
    auto in = std::move(*s->receiver->open_inbound(inbound(s->to, *restarted, {1, phase, 2})));
    for (const KvPageKey key : s->from.keys(phase)) out->post(key, s->from.at(key), std::nullopt);
    loop.run(take_four(in.get(), &loop));
    start("the second receiver's close", in->close());
    start("the second sender's close", out->close());
    finish(phase);
    start("the second sender's shutdown", restarted->shutdown());
    start("the receiver's shutdown", s->receiver->shutdown());
    finish(phase);
    if (HasFatalFailure()) return;
  }
}

TEST_P(KvShutdownTest, AtEveryPhaseAStreamIsCancelledAndItsTransportsGoOn) {
  Pages from(2, 2, 1 << 20), to(2, 2, 1 << 20);
  from.fill(3);
  auto sender = make(from.data), receiver = make(to.data);
  for (uint32_t phase = 0; phase < kPhases; ++phase) {
    const AttemptId attempt{2, phase, 1};
    auto in = std::move(*receiver->open_inbound(inbound(to, *sender, attempt)));
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, attempt)));
    for (const KvPageKey key : from.keys(phase)) out->post(key, from.at(key), std::nullopt);
    steps(phase / 2);
    if (phase % 3 != 0) start("the receiver's close", in->close());
    if (phase % 3 != 1) start("the sender's close", out->close());
    finish(phase);
    if (phase % 3 == 0) start("the receiver's close", in->close());
    if (phase % 3 == 1) start("the sender's close", out->close());
    finish(phase);
    if (HasFatalFailure()) return;
  }
  start("the sender's shutdown", sender->shutdown());
  start("the receiver's shutdown", receiver->shutdown());
  finish(kPhases);
}

TEST_P(KvShutdownTest, SendersThatLeaveUnderLoadAreReplaced) {
  constexpr uint32_t kStreams = 8;
  Pages to(2, 2, 65536);
  auto receiver = make(to.data);
  for (uint32_t round = 0; round < 20; ++round) {
    Pages from(2, 2, 65536);
    from.fill(round);
    auto sender = make(from.data);
    std::vector<std::unique_ptr<KvInbound>> ins;
    std::vector<std::unique_ptr<KvOutbound>> outs;
    for (uint32_t i = 0; i < kStreams; ++i) {
      const AttemptId attempt{3, round, i};
      outs.push_back(std::move(*sender->open_outbound(outbound(from, *receiver, attempt))));
      ins.push_back(std::move(*receiver->open_inbound(inbound(to, *sender, attempt))));
      for (const KvPageKey key : from.keys(i)) outs.back()->post(key, from.at(key), std::nullopt);
      steps(round);
    }
    for (uint32_t i = 0; i < kStreams; ++i) start("sender " + std::to_string(i), outs[i]->close());
    start("the sender's shutdown", sender->shutdown());
    for (uint32_t i = 0; i < kStreams; ++i) start("receiver " + std::to_string(i), ins[i]->close());
    finish(round);
    if (HasFatalFailure()) return;
  }
  loop.run(receiver->shutdown());
}

INSTANTIATE_TEST_SUITE_P(Kv, KvShutdownTest, kTransports, param_name);

}  // namespace
}  // namespace runahead
