// NCCL's own ways to fail, over its double: a communicator that never stands, is refused, fails or stalls in the midst; what a
// closed stream leaves on its way; and that nothing of it is left at the end.
#include <dlfcn.h>

#include <boost/asio/detached.hpp>

#include "tests/support/nccl/nccl_double.h"
#include "tests/transport/kv/hop_peer.h"
#include "tests/transport/kv/kv_fixture.h"
#include "transport/kv/nccl_api.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

constexpr size_t kBytes = 4096;

class NcclTest : public KvTest {
 protected:
  NcclTest() { connect_timeout = transfer_timeout = 400ms; }
  void SetUp() override {
    KvTest::SetUp();
    void* library = dlopen(std::getenv("RUNAHEAD_NCCL_LIBRARY"), RTLD_NOW | RTLD_NOLOAD);
    ASSERT_NE(library, nullptr) << "the transport has opened it";
    set_ = reinterpret_cast<NcclDoubleSet>(dlsym(library, "nccl_double_set"));
    communicators = reinterpret_cast<NcclDoubleCount>(dlsym(library, "nccl_double_communicators"));
    ASSERT_TRUE(set_ != nullptr && communicators != nullptr);
    reset();
    sender = make(from.data);
    receiver = make(to.data);
    from.fill(5);
  }
  void TearDown() override {
    reset();
    if (!sender) return;
    loop.run(sender->shutdown());
    loop.run(receiver->shutdown());
    EXPECT_EQ(communicators(), 0) << "each is aborted once";
  }
  void set(NcclDouble what, int count) { set_(static_cast<int>(what), count); }
  void reset() {
    for (const NcclDouble what :
         {NcclDouble::kDelay, NcclDouble::kNeverJoins, NcclDouble::kRefusesToJoin, NcclDouble::kFlips})
      set(what, 0);
    set(NcclDouble::kStallsAfter, -1);
    set(NcclDouble::kFailsAfter, -1);
  }
  // A stream of all pages, from its opening to the error or the last page of both ends.
  std::pair<Result<void>, Result<void>> transfer(uint32_t number) {
    const AttemptId attempt{1, number, 1};
    to.overwrite(std::byte{0});
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, attempt)));
    auto in = std::move(*receiver->open_inbound(inbound(to, *sender, attempt)));
    for (const KvPageKey key : from.keys(number)) out->post(key, from.at(key), std::nullopt);
    std::pair<Result<void>, Result<void>> ended;
    loop.run(both_ends(out.get(), in.get(), &ended));
    return ended;
  }
  asio::awaitable<void> both_ends(KvOutbound* out, KvInbound* in, std::pair<Result<void>, Result<void>>* ended) {
    ended->second = co_await take_all(in, int64_t{from.num_layers} * from.num_pages, loop.in(10s));
    ended->first = co_await out->drain(loop.in(10s));
    co_await out->close();
    co_await in->close();
  }
  void expect_good(uint32_t number) {
    const auto [sent, received] = transfer(number);
    expect_ok(sent);
    expect_ok(received);
    EXPECT_TRUE(from.data == to.data) << number;
  }

  Pages from{4, 4, kBytes}, to{4, 4, kBytes};
  std::unique_ptr<KvTransport> sender, receiver;
  NcclDoubleCount communicators = nullptr;

 private:
  NcclDoubleSet set_ = nullptr;
};

TEST_P(NcclTest, StreamsBetweenTwoWorkersShareACommunicator) {
  for (uint32_t number = 1; number <= 5; ++number) expect_good(number);
  EXPECT_EQ(communicators(), 2) << "one of two ends";
  EXPECT_NE(sender->describe().find("2.29"), std::string::npos) << sender->describe();
}

TEST_P(NcclTest, AfterEachFailureOfACommunicatorTheNextStreamHasANewOne) {
  // The first two while there is none yet.
  const std::pair<NcclDouble, int> faults[] = {{NcclDouble::kNeverJoins, 1}, {NcclDouble::kRefusesToJoin, 1},
                                               {NcclDouble::kFailsAfter, 3}, {NcclDouble::kStallsAfter, 5},
                                               {NcclDouble::kFailsAfter, 0}, {NcclDouble::kStallsAfter, 0}};
  uint32_t number = 0;
  for (const auto& [what, count] : faults) {
    set(what, count);
    const Time begin = loop.clock().now();
    const auto [sent, received] = transfer(++number);
    EXPECT_FALSE(sent.has_value()) << number;
    ASSERT_FALSE(received.has_value()) << number;
    const ErrorCode code = received.error().code;
    EXPECT_TRUE(code == ErrorCode::kWorkerLost || code == ErrorCode::kDeadlineExceeded) << received.error().message;
    EXPECT_LT(seconds(loop.clock().now() - begin), 3) << number << ": " << received.error().message;
    reset();
    if (what == NcclDouble::kNeverJoins) continue;
    expect_good(++number);
    EXPECT_EQ(communicators(), 2) << "the failed one was aborted";
  }
}

TEST_P(NcclTest, AStreamThatIsClosedInTheMidstDisturbsNoOther) {
  set(NcclDouble::kDelay, 2000);
  for (const int steps : {0, 3, 10, 30, 60}) {
    Pages other_from(8, 4, kBytes + 16), other_to(8, 4, kBytes + 16);
    const AttemptId attempt{2, static_cast<uint64_t>(steps), 1};
    auto out = std::move(*sender->open_outbound(outbound(other_from, *receiver, attempt)));
    auto in = std::move(*receiver->open_inbound(inbound(other_to, *sender, attempt)));
    for (const KvPageKey key : other_from.keys(1)) out->post(key, other_from.at(key), std::nullopt);
    loop.io().restart();
    for (int i = 0; i < steps; ++i) loop.io().run_one_for(1ms);
    loop.run(steps % 2 == 0 ? in->close() : out->close());
    expect_good(static_cast<uint32_t>(steps) + 1);
    EXPECT_EQ(communicators(), 2) << "the same one";
    loop.run(steps % 2 == 0 ? out->close() : in->close());
  }
}

TEST_P(NcclTest, APageThatChangesOnItsWayIsFoundAndTheHopGoesOn) {
  expect_good(1);
  set(NcclDouble::kFlips, 1);
  const auto [sent, received] = transfer(2);
  expect_code(received, ErrorCode::kCorrupt);
  expect_code(sent, ErrorCode::kCorrupt);
  reset();
  expect_good(3);
}

TEST_P(NcclTest, WithoutADeviceItSaysSo) {
  KvTransportOptions options = KvTest::options();
  options.device = {};
  const auto made = make_kv_transport("nccl", options, loop.executor(), loop.clock());
  expect_code(made, ErrorCode::kUnsupported);
  EXPECT_NE(made.error().message.find("--compute cuda"), std::string::npos);
}

// Whatever a stranger says, it gets no communicator and keeps nobody out.
TEST_P(NcclTest, StrangersGetNothing) {
  const std::string address = sender->address();  // nccl://127.0.0.1:PORT#...
  const size_t colon = address.rfind(':');
  const auto port = static_cast<unsigned short>(std::stoi(address.substr(colon + 1)));
  std::vector<asio::ip::tcp::socket> strangers;
  for (const char* says :
       {"", "GET / HTTP/1.1\r\n\r\n", "RUNA", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}) {
    auto& socket = strangers.emplace_back(loop.io());
    socket.connect({asio::ip::make_address("127.0.0.1"), port});
    socket.write_some(asio::buffer(says, std::strlen(says)));
  }
  expect_good(1);
  EXPECT_EQ(communicators(), 2);
}

TEST_P(NcclTest, APeerThatSaysWhatItMayNotIsCutOff) {
  const KvAddress address = *parse_kv_address(sender->address(), "nccl");
  const StreamHello hello{{9, 9, 9}, kToken, address.incarnation, {1, 1, 64}, 1};
  const HopFrame open = frame_of(HopFrameKind::kOpen, 1, encode(hello));
  const HopFrame page = frame_of(HopFrameKind::kPage, 1, encode(KvPageHeader{{9, 9, 9}, kToken, {0, 0}, 64, 0}));
  const HopBody nothing{};
  bool closed = false;
  EXPECT_EQ(answers_to(loop, address, {open}, &closed).size(), kPreambleBytes) << "the sender's end may come yet";
  EXPECT_FALSE(closed);
  for (const std::vector<HopFrame>& bad : {std::vector{page},
                                           {open, page},
                                           {open, open},
                                           {frame_of(HopFrameKind::kTaken, 0, nothing, 1)},
                                           {frame_of(HopFrameKind::kIntroduction, 0, nothing, 128)},
                                           {frame_of(HopFrameKind::kOpen, 1, nothing)}}) {
    EXPECT_EQ(answers_to(loop, address, bad, &closed).size(), kPreambleBytes);
    EXPECT_TRUE(closed) << bad.size();
  }
  StreamHello other = hello;
  ++other.incarnation;
  const auto refused = answers_to(loop, address, {frame_of(HopFrameKind::kOpen, 1, encode(other))}, &closed);
  ASSERT_EQ(refused.size(), kPreambleBytes + kHopFrameBytes);
  const auto reply = parse_hop_frame(std::span(refused).last<kHopFrameBytes>());
  ASSERT_TRUE(reply.has_value());
  EXPECT_TRUE(reply->kind == HopFrameKind::kReply && reply->body[0] == std::byte{4}) << "it is another worker";
  EXPECT_EQ(communicators(), 0);
  expect_good(1);
}

INSTANTIATE_TEST_SUITE_P(Kv, NcclTest, testing::Values("nccl"), param_name);

// In a process of its own: the library is opened once.
TEST(NcclLibrary, OfAReleaseHasWhatIsUsed) {
  if (std::getenv("RUNAHEAD_TEST_NCCL_LIBRARY") == nullptr)
    GTEST_SKIP() << "run by tests/run.sh cuda, which has NCCL's own library";
  setenv("RUNAHEAD_NCCL_LIBRARY", std::getenv("RUNAHEAD_TEST_NCCL_LIBRARY"), 1);
  const auto api = open_nccl();
  ASSERT_TRUE(api.has_value()) << api.error().message;
  std::printf("    NCCL %s\n", nccl_version(**api).c_str());
  NcclUniqueId first, second;
  ASSERT_EQ((*api)->get_unique_id(&first), kNcclSuccess);
  ASSERT_EQ((*api)->get_unique_id(&second), kNcclSuccess);
  EXPECT_NE(std::memcmp(&first, &second, sizeof first), 0);
  EXPECT_STRNE((*api)->error_text(kNcclInProgress), "");
}

TEST(HopFrame, OfAKindThatThereIsNotIsRefused) {
  HopFrame frame{HopFrameKind::kPage, 77, 1 << 20, {}};
  frame.body[63] = std::byte{9};
  auto bytes = encode(frame);
  const auto parsed = parse_hop_frame(bytes);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_TRUE(parsed->kind == frame.kind && parsed->stream == 77 && parsed->at == 1 << 20 &&
              parsed->body == frame.body);
  for (const int kind : {0, 8, 255}) {
    bytes[0] = static_cast<std::byte>(kind);
    expect_code(parse_hop_frame(bytes), ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace runahead
