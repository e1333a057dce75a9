// What every transport must do when something fails: one error a stream, soon, and no byte where it must not be.
#include <boost/asio/detached.hpp>
#include <cstring>

#include "tests/transport/kv/kv_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

class KvFailureTest : public KvTest {
 protected:
  KvFailureTest() { connect_timeout = transfer_timeout = 800ms; }  // long enough for a busy machine
  void run_for(Duration d) {
    loop.io().restart();
    loop.io().run_for(std::chrono::duration_cast<std::chrono::milliseconds>(d));
  }
};

// The stream's error, which must come within `bound`.
asio::awaitable<void> expect_inbound_error(KvInbound* in, ErrorCode code, Duration bound, RunLoop* loop) {
  const Deadline deadline = loop->in(bound);
  for (;;) {
    auto arrival = co_await in->next(loop->in(20s));
    if (arrival) continue;
    expect_code(arrival, code);
    break;
  }
  EXPECT_LT(loop->clock().now(), deadline.at) << "the error came too late";
}

asio::awaitable<void> expect_outbound_error(KvOutbound* out, ErrorCode code, Duration bound, RunLoop* loop) {
  const Deadline deadline = loop->in(bound);
  auto drained = co_await out->drain(loop->in(20s));
  expect_code(drained, code);
  EXPECT_LT(loop->clock().now(), deadline.at) << "the error came too late";
}

asio::awaitable<void> expect_pages(KvInbound* in, int count, RunLoop* loop) {
  auto taken = co_await take_all(in, count, loop->in(5s));
  expect_ok(taken);
}

TEST_P(KvFailureTest, AReceiverWithTheWrongTokenIsRefusedAndTheRightOneStillServed) {
  Pages from(1, 2, 4096), to(1, 2, 4096);
  from.fill(1);
  auto sender = make(from.data), receiver = make(to.data);
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
  auto stranger = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt, {kToken.high, kToken.low ^ 1})));
  loop.run(expect_inbound_error(stranger.get(), ErrorCode::kUnauthorized, 5s, &loop));
  loop.run(stranger->close());
  EXPECT_TRUE(to.all_are(std::byte{0}));
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  loop.run(expect_pages(in.get(), 2, &loop));
  EXPECT_TRUE(from.data == to.data);
}

TEST_P(KvFailureTest, EndsThatDisagreeOnTheReachOfALayerBothFail) {
  Pages from(2, 3, 4096), to(2, 3, 4096);
  from.first_pages = {0, 1}, to.first_pages = {1, 0};  // as many pages
  auto sender = make(from.data), receiver = make(to.data);
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  loop.run(expect_inbound_error(in.get(), ErrorCode::kIncompatible, 5s, &loop));
  loop.run(expect_outbound_error(out.get(), ErrorCode::kIncompatible, 5s, &loop));
}

TEST_P(KvFailureTest, EndsThatDisagreeOnTheGeometryBothFail) {
  Pages from(2, 2, 4096), to(2, 3, 4096);
  auto sender = make(from.data), receiver = make(to.data);
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  loop.run(expect_inbound_error(in.get(), ErrorCode::kIncompatible, 5s, &loop));
  loop.run(expect_outbound_error(out.get(), ErrorCode::kIncompatible, 5s, &loop));
}

TEST_P(KvFailureTest, AnEndWhoseOtherEndNeverOpensFailsAfterTheConnectTimeout) {
  Pages from(1, 2, 4096), to(1, 2, 4096);
  auto sender = make(from.data), receiver = make(to.data);
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  loop.run(expect_inbound_error(in.get(), ErrorCode::kDeadlineExceeded, 5s, &loop));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, {5, 6, 8})));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  loop.run(expect_outbound_error(out.get(), ErrorCode::kDeadlineExceeded, 5s, &loop));
}

TEST_P(KvFailureTest, ASenderThatIsGoneIsAWorkerLost) {
  Pages from(1, 2, 4096), to(1, 2, 4096);
  auto sender = make(from.data), receiver = make(to.data);
  KvInboundParams params = inbound(to, *sender, kAttempt);
  loop.run(sender->shutdown());
  sender.reset();
  auto in = std::move(*receiver->open_inbound(std::move(params)));
  loop.run(expect_inbound_error(in.get(), ErrorCode::kWorkerLost, 5s, &loop));
}

TEST_P(KvFailureTest, ASenderThatClosesMidStreamEndsTheReceiver) {
  for (const bool orderly : {true, false}) {
    Pages from(2, 2, 65536), to(2, 2, 65536);
    auto sender = make(from.data), receiver = make(to.data);
    auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
    out->post({1, 1}, from.at({1, 1}), std::nullopt);
    loop.run(expect_pages(in.get(), 1, &loop));
    if (orderly) loop.run(out->close());
    out.reset();
    loop.run(expect_inbound_error(in.get(), ErrorCode::kWorkerLost, 5s, &loop));
    loop.run(in->close());
    loop.run(sender->shutdown());  // who does not close has pages in the transport's hands until then
    loop.run(receiver->shutdown());
  }
}

TEST_P(KvFailureTest, AfterTheReceiversCloseItsBuffersAreNeverTouchedAgain) {
  for (const int delay_ms : {0, 1, 3, 10, 30}) {  // before anything moved, or in the midst of a page
    Pages from(4, 4, 1 << 20), to(4, 4, 1 << 20);
    from.overwrite(std::byte{0x11});
    auto sender = make(from.data), receiver = make(to.data);
    auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
    for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
    run_for(std::chrono::milliseconds(delay_ms));
    loop.run(in->close());
    to.overwrite(std::byte{0xAA});  // the pages belong to somebody else now
    run_for(30ms);
    EXPECT_TRUE(to.all_are(std::byte{0xAA})) << delay_ms;
    if (in->stats().pages > 0 && in->stats().pages < 16)
      loop.run(expect_outbound_error(out.get(), ErrorCode::kWorkerLost, 5s, &loop));
    loop.run(out->close());
  }
}

TEST_P(KvFailureTest, AfterTheSendersCloseItsPagesAreNeverReadAgain) {
  Pages from(4, 4, 1 << 20), to(4, 4, 1 << 20);
  from.overwrite(std::byte{0x11});
  auto sender = make(from.data), receiver = make(to.data);
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
  run_for(3ms);
  loop.run(out->close());
  from.overwrite(std::byte{0xAA});
  run_for(30ms);
  EXPECT_TRUE(to.none_is(std::byte{0xAA}));
  loop.run(in->close());
}

TEST_P(KvFailureTest, APageWhoseBytesDoNotMatchItsChecksumIsNeverHandedOut) {
  Pages from(1, 3, 70000), to(1, 3, 70000);
  from.fill(1);
  auto sender = make(from.data), receiver = make(to.data);
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  loop.run(expect_pages(in.get(), 1, &loop));
  out->post({0, 1}, from.at({0, 1}), crc32c(from.at({0, 1})) ^ 1);
  loop.run(expect_inbound_error(in.get(), ErrorCode::kCorrupt, 5s, &loop));
  out->post({0, 2}, from.at({0, 2}), std::nullopt);
  loop.run(expect_outbound_error(out.get(), ErrorCode::kCorrupt, 5s, &loop));
  loop.run(in->close());
  loop.run(out->close());
}

TEST_P(KvFailureTest, HandlesMayDieWithoutCloseAndTheLoopMayDieFirst) {
  Pages from(2, 4, 1 << 20), to(2, 4, 1 << 20);
  auto sender = make(from.data), receiver = make(to.data);
  for (int i = 0; i < 3; ++i) {
    const AttemptId attempt{1, 2, static_cast<uint32_t>(i)};
    auto in = std::move(*receiver->open_inbound(inbound(to, *sender, attempt)));
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, attempt)));
    for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
    run_for(std::chrono::milliseconds(i));
  }
  run_for(20ms);
  sender.reset();
}

// UCX 1.13's connection manager aborts the process if an endpoint goes while it connects and another takes its number.
TEST_P(KvFailureTest, StreamsThatCloseWhileTheyConnectDisturbNobody) {
  Pages from(1, 2, 4096), to(1, 2, 4096);
  from.fill(1);
  auto sender = make(from.data), receiver = make(to.data);
  for (uint32_t round = 0; round < 60; ++round) {
    std::vector<std::unique_ptr<KvInbound>> streams;
    for (uint32_t i = 0; i < 4; ++i)
      streams.push_back(std::move(*receiver->open_inbound(inbound(to, *sender, {1, round, i}))));
    loop.io().restart();
    loop.io().run_for(std::chrono::microseconds(round % 6 * 150));
    if (round % 2 == 0)
      for (auto& stream : streams) loop.run(stream->close());
  }
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
  loop.run(expect_pages(in.get(), 2, &loop));
  EXPECT_TRUE(from.data == to.data);
}

INSTANTIATE_TEST_SUITE_P(Kv, KvFailureTest, kTransports, param_name);

// Only the memory transport has hooks between its ends.
class MemoryKvTest : public KvFailureTest {};

TEST_P(MemoryKvTest, AnyFlippedBitOfPageOrHeaderIsFound) {
  SeededRng rng(11);
  for (int round = 0; round < 300; ++round) {
    Pages from(1, 1, 1000), to(1, 1, 1000);
    from.fill(static_cast<uint64_t>(round));
    auto sender = make(from.data), receiver = make(to.data);
    hub->damage = [&](std::span<std::byte, kKvPageHeaderBytes> header, std::span<std::byte> page) {
      const size_t at = rng.next() % (header.size() + page.size());
      (at < header.size() ? header[at] : page[at - header.size()]) ^= std::byte(1 << rng.next() % 8);
    };
    auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
    out->post({0, 0}, from.at({0, 0}), std::nullopt);
    loop.run(expect_inbound_error(in.get(), ErrorCode::kCorrupt, 5s, &loop));
    loop.run(expect_outbound_error(out.get(), ErrorCode::kCorrupt, 5s, &loop));
  }
}

TEST_P(MemoryKvTest, AFrozenPeerIsADeadlineExceededOnBothEnds) {
  Pages from(1, 1, 1000), to(1, 1, 1000);
  auto sender = make(from.data), receiver = make(to.data);
  hub->frozen = true;
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  loop.run(expect_inbound_error(in.get(), ErrorCode::kDeadlineExceeded, 5s, &loop));
  loop.run(expect_outbound_error(out.get(), ErrorCode::kDeadlineExceeded, 5s, &loop));
}

INSTANTIATE_TEST_SUITE_P(Kv, MemoryKvTest, testing::Values("memory"), param_name);

TEST(SelectTransport, RefusesWhatItCannotMakeWithAClearSentence) {
  RunLoop loop;
  KvTransportOptions options;
  expect_code(make_kv_transport("tcp", options, loop.executor(), loop.clock()), ErrorCode::kInvalidArgument);
  options.incarnation = 1;
  const auto unknown = make_kv_transport("carrier-pigeon", options, loop.executor(), loop.clock());
  expect_code(unknown, ErrorCode::kInvalidArgument);
  EXPECT_NE(unknown.error().message.find("choose one of auto, ucx, tcp, nccl, ipc, memory"), std::string::npos);
  expect_code(make_kv_transport("memory", options, loop.executor(), loop.clock()), ErrorCode::kInvalidArgument);
  options.listen.host = "0.0.0.0";
  options.advertise = HostPort{"me.example", 0};
  expect_code(make_kv_transport("tcp", options, loop.executor(), loop.clock()), ErrorCode::kInvalidArgument);
  options.allow_remote = true;
  const auto made = make_kv_transport("tcp", options, loop.executor(), loop.clock());
  expect_ok(made);
  EXPECT_EQ((*made)->address().substr(0, 17), "tcp://me.example:");
  EXPECT_TRUE((*made)->address().ends_with("#0000000000000001"));
}

TEST(SelectTransport, PagesOfAGpuAreNotAuthenticatedAndThatIsSaid) {
  RunLoop loop;
  KvTransportOptions options;
  options.incarnation = 1;
  options.device = device_double();
  options.authenticate_pages = true;
  for (const char* name : {"nccl", "ipc"}) {
    const auto made = make_kv_transport(name, options, loop.executor(), loop.clock());
    expect_code(made, ErrorCode::kUnsupported);
    EXPECT_NE(made.error().message.find(std::string(name) + " authenticates no pages"), std::string::npos);
  }
}

}  // namespace
}  // namespace runahead
