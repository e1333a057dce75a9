// TcpKvTransport against peers that are not ours: hand-written ends, a proxy that flips bits, strangers.
#include <spdlog/spdlog.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <cstring>
#include <functional>

#include "base/log.h"
#include "tests/transport/kv/kv_fixture.h"
#include "transport/control/frame.h"
#include "transport/kv/kv_page_header.h"
#include "transport/kv/stream_hello.h"
#include "transport/kv/tcp_kv_streams.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

class TcpKvWire : public KvTest {
 protected:
  TcpKvWire() { connect_timeout = 500ms, transfer_timeout = 300ms; }
  // An address whose listener is ours.
  std::string address(uint16_t port) { return to_string(KvAddress{{"127.0.0.1", port}, 1}); }
  KvInboundParams from_port(Pages& pages, uint16_t port) {
    return {.attempt = kAttempt,
            .stream_token = kToken,
            .sender_address = address(port),
            .pin = std::make_shared<int>(0),
            .buffer = [&pages](KvPageKey key) { return pages.at(key); },
            .prefix_pages = pages.num_pages,
            .num_layers = pages.num_layers,
            .page_bytes = pages.page_bytes,
            .checksum = pages.checksum()};
  }
  Tcp::acceptor listen() { return {loop.io(), Tcp::endpoint(asio::ip::address_v4::loopback(), 0)}; }
};

using Bytes = std::vector<std::byte>;

void append(Bytes& to, std::span<const std::byte> bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

// A sender by hand: reads the greeting, answers ok, writes `bytes`, and says nothing more.
asio::awaitable<void> sender_by_hand(Tcp::acceptor* acceptor, Bytes bytes, std::shared_ptr<Tcp::socket> keep) {
  auto [error, socket] = co_await acceptor->async_accept(kAsTuple);
  *keep = std::move(socket);
  std::array<std::byte, kPreambleBytes + kStreamHelloBytes> greeting;
  co_await asio::async_read(*keep, asio::buffer(greeting), kAsTuple);
  Bytes answer;
  append(answer, encode_preamble(Plane::kData));
  append(answer, encode(StreamReply::kOk));
  append(answer, bytes);
  co_await asio::async_write(*keep, asio::buffer(answer), kAsTuple);
}

asio::awaitable<void> expect_error(KvInbound* in, ErrorCode code, Duration least, RunLoop* loop) {
  const Time begin = loop->clock().now();
  for (;;) {
    auto arrival = co_await in->next(loop->in(10s));
    if (arrival) continue;
    expect_code(arrival, code);
    break;
  }
  EXPECT_GE(loop->clock().now() - begin, least);
  EXPECT_LT(loop->clock().now() - begin, 2s);
  co_await in->close();
}

TEST_P(TcpKvWire, APageThatStopsHalfWayIsADeadlineExceeded) {
  Pages to(1, 1, 10000);
  auto receiver = make(to.data);
  auto acceptor = listen();
  Bytes bytes;
  append(bytes, encode(KvPageHeader{kAttempt, kToken, {0, 0}, 10000, 0}));
  bytes.resize(bytes.size() + 5000);
  const auto keep = std::make_shared<Tcp::socket>(loop.io());
  asio::co_spawn(loop.io(), sender_by_hand(&acceptor, bytes, keep), asio::detached);
  auto in = std::move(*receiver->open_inbound(from_port(to, acceptor.local_endpoint().port())));
  loop.run(expect_error(in.get(), ErrorCode::kDeadlineExceeded, transfer_timeout, &loop));
}

TEST_P(TcpKvWire, ASenderThatAcceptsAndSaysNothingIsADeadlineExceeded) {
  Pages to(1, 1, 10000);
  auto receiver = make(to.data);
  auto acceptor = listen();  // the kernel completes the connection; nobody reads it
  auto in = std::move(*receiver->open_inbound(from_port(to, acceptor.local_endpoint().port())));
  loop.run(expect_error(in.get(), ErrorCode::kDeadlineExceeded, 400ms, &loop));
}

TEST_P(TcpKvWire, PagesThatAreNotTheStreamsOwnAreCorruptAndTouchNoBuffer) {
  const KvPageHeader good{kAttempt, kToken, {0, 1}, 1000, crc32c(Bytes(1000))};
  std::vector<KvPageHeader> bad(8, good);
  bad[0].attempt.attempt = 6;
  bad[1].attempt.epoch = 4;
  bad[2].stream_token.high ^= 1;
  bad[3].key.layer = 1;
  bad[4].key.page = 2;
  bad[5].key.page = -1;
  bad[6].page_bytes = 999;
  bad[7] = good;  // sent twice
  for (const KvPageHeader& header : bad) {
    Pages to(1, 2, 1000);
    auto receiver = make(to.data);
    auto acceptor = listen();
    Bytes bytes;
    if (header == good) {
      append(bytes, encode(header));
      bytes.resize(bytes.size() + 1000);
    }
    append(bytes, encode(header));
    bytes.resize(bytes.size() + 1000, std::byte{0xEE});
    const auto keep = std::make_shared<Tcp::socket>(loop.io());
    asio::co_spawn(loop.io(), sender_by_hand(&acceptor, bytes, keep), asio::detached);
    auto in = std::move(*receiver->open_inbound(from_port(to, acceptor.local_endpoint().port())));
    loop.run(expect_error(in.get(), ErrorCode::kCorrupt, 0ms, &loop));
    EXPECT_TRUE(to.none_is(std::byte{0xEE}));
  }
}

// A receiver by hand that greets correctly and then reads nothing.
asio::awaitable<void> receiver_by_hand(std::shared_ptr<Tcp::socket> socket, KvAddress sender, StreamHello hello) {
  co_await socket->async_connect({asio::ip::address_v4::loopback(), sender.place.port}, kAsTuple);
  Bytes greeting;
  append(greeting, encode_preamble(Plane::kData));
  append(greeting, encode(hello));
  co_await asio::async_write(*socket, asio::buffer(greeting), kAsTuple);
}

asio::awaitable<void> expect_stall(KvOutbound* out, RunLoop* loop) {
  auto drained = co_await out->drain(loop->in(5s));
  expect_code(drained, ErrorCode::kDeadlineExceeded);
  EXPECT_NE(drained.error().message.find("no progress"), std::string::npos) << drained.error().message;
  co_await out->close();
}

TEST_P(TcpKvWire, AReceiverThatStopsReadingIsADeadlineExceeded) {
  Pages from(1, 8, 4 << 20);
  auto sender = make(from.data);
  auto out = std::move(*sender->open_outbound(outbound(from, *sender, kAttempt)));
  for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
  const KvAddress address = *parse_kv_address(sender->address());
  const auto socket = std::make_shared<Tcp::socket>(loop.io());
  const StreamHello hello{kAttempt, kToken, address.incarnation, {1, 8, 4 << 20}, 1};
  asio::co_spawn(loop.io(), receiver_by_hand(socket, address, hello), asio::detached);
  loop.run(expect_stall(out.get(), &loop));
}

asio::awaitable<void> greet_and_say(std::shared_ptr<Tcp::socket> socket, KvAddress sender, StreamHello hello,
                                    Bytes bytes) {
  co_await receiver_by_hand(socket, sender, hello);
  co_await asio::async_write(*socket, asio::buffer(bytes), kAsTuple);
}

asio::awaitable<void> expect_corrupt(KvOutbound* out, RunLoop* loop) {
  auto drained = co_await out->drain(loop->in(5s));
  expect_code(drained, ErrorCode::kCorrupt);
  co_await out->close();
}

TEST_P(TcpKvWire, AReceiverThatOpensLayersThatThereAreNotIsCorrupt) {
  Pages from(3, 2, 1000);
  auto sender = make(from.data);
  auto out = std::move(*sender->open_outbound(outbound(from, *sender, kAttempt)));
  for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
  const KvAddress address = *parse_kv_address(sender->address());
  Bytes words;
  append(words, encode_layers_open(2));
  append(words, encode_layers_open(4));
  const StreamHello hello{kAttempt, kToken, address.incarnation, {3, 2, 1000}, 1};
  asio::co_spawn(loop.io(), greet_and_say(std::make_shared<Tcp::socket>(loop.io()), address, hello, words),
                 asio::detached);
  loop.run(expect_corrupt(out.get(), &loop));
}

TEST_P(TcpKvWire, APageOfALayerThatIsNotOpenIsCorruptAndTouchesNoBuffer) {
  Pages to(2, 1, 1000);
  auto receiver = make(to.data);
  auto acceptor = listen();
  Bytes bytes;
  append(bytes, encode(KvPageHeader{kAttempt, kToken, {1, 0}, 1000, 0}));
  bytes.resize(bytes.size() + 1000, std::byte{0xEE});
  asio::co_spawn(loop.io(), sender_by_hand(&acceptor, bytes, std::make_shared<Tcp::socket>(loop.io())), asio::detached);
  KvInboundParams params = from_port(to, acceptor.local_endpoint().port());
  params.layers_open = 1;
  auto in = std::move(*receiver->open_inbound(params));
  loop.run(expect_error(in.get(), ErrorCode::kCorrupt, 0ms, &loop));
  EXPECT_TRUE(to.none_is(std::byte{0xEE}));
}

TEST_P(TcpKvWire, ARestartedSenderIsNotTakenForItsPredecessor) {
  Pages from(1, 1, 100), to(1, 1, 100);
  auto sender = make(from.data), receiver = make(to.data);
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  KvInboundParams params = inbound(to, *sender, kAttempt);
  KvAddress predecessor = *parse_kv_address(params.sender_address);
  predecessor.incarnation ^= 1;
  params.sender_address = to_string(predecessor);
  auto in = std::move(*receiver->open_inbound(params));
  loop.run(expect_error(in.get(), ErrorCode::kWorkerLost, 0ms, &loop));
  loop.run(out->close());
}

// Forwards one connection; flips one bit of what the sender sends, at `offset`.
asio::awaitable<void> forward(std::shared_ptr<Tcp::socket> from, std::shared_ptr<Tcp::socket> to, int64_t flip_at) {
  std::vector<unsigned char> buffer(16 << 10);
  int64_t at = 0;
  for (;;) {
    auto [error, size] = co_await from->async_read_some(asio::buffer(buffer), kAsTuple);
    if (error) break;
    if (flip_at >= at && flip_at < at + static_cast<int64_t>(size)) buffer[static_cast<size_t>(flip_at - at)] ^= 0x10;
    at += static_cast<int64_t>(size);
    auto [write_error, written] = co_await asio::async_write(*to, asio::buffer(buffer.data(), size), kAsTuple);
    if (write_error) break;
  }
  close_socket(*from);
  close_socket(*to);
}

asio::awaitable<void> proxy(Tcp::acceptor* acceptor, uint16_t sender_port, int64_t flip_at) {
  auto [error, socket] = co_await acceptor->async_accept(kAsTuple);
  const auto receiver = std::make_shared<Tcp::socket>(std::move(socket));
  const auto sender = std::make_shared<Tcp::socket>(receiver->get_executor());
  co_await sender->async_connect({asio::ip::address_v4::loopback(), sender_port}, kAsTuple);
  asio::co_spawn(receiver->get_executor(), forward(receiver, sender, -1), asio::detached);
  asio::co_spawn(receiver->get_executor(), forward(sender, receiver, flip_at), asio::detached);
}

// Takes pages until the error; each page that is handed out must be intact. False if no error came.
asio::awaitable<void> take_intact(KvInbound* in, Pages* from, Pages* to, bool* failed, RunLoop* loop) {
  for (int i = 0; i < from->num_layers * from->num_pages; ++i) {
    auto arrival = co_await in->next(loop->in(5s));
    if (!arrival) {
      *failed = true;
      break;
    }
    EXPECT_EQ(0, std::memcmp(from->at(arrival->key).data(), to->at(arrival->key).data(), from->page_bytes));
  }
  co_await in->close();
}

TEST_P(TcpKvWire, OneBitFlippedOnTheWayIsAlwaysFound) {
  SeededRng rng(5);
  const int64_t answer = kPreambleBytes + kStreamReplyBytes, page = kKvPageHeaderBytes + 3000;
  for (int round = 0; round < 150; ++round) {
    const int64_t flip_at = round == 0   ? -1
                            : round < 80 ? static_cast<int64_t>(rng.next() % static_cast<uint64_t>(answer + page))
                                         : static_cast<int64_t>(rng.next() % static_cast<uint64_t>(answer + 4 * page));
    Pages from(2, 2, 3000), to(2, 2, 3000);
    from.fill(static_cast<uint64_t>(round));
    auto sender = make(from.data), receiver = make(to.data);
    auto acceptor = listen();
    const KvAddress real = *parse_kv_address(sender->address());
    asio::co_spawn(loop.io(), proxy(&acceptor, real.place.port, flip_at), asio::detached);
    KvInboundParams params = inbound(to, *sender, kAttempt);
    params.sender_address = to_string(KvAddress{{"127.0.0.1", acceptor.local_endpoint().port()}, real.incarnation});
    auto in = std::move(*receiver->open_inbound(params));
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
    for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
    bool failed = false;
    loop.run(take_intact(in.get(), &from, &to, &failed, &loop));
    EXPECT_EQ(failed, flip_at >= 0) << flip_at;
    loop.run(out->close());
  }
}

asio::awaitable<void> strangers(KvAddress address, RunLoop* loop) {
  SeededRng rng(3);
  for (int i = 0; i < 100; ++i) {
    Tcp::socket socket(co_await asio::this_coro::executor);
    co_await socket.async_connect({asio::ip::address_v4::loopback(), address.place.port}, kAsTuple);
    Bytes bytes;
    if (i % 2) append(bytes, encode_preamble(Plane::kData));
    bytes.resize(bytes.size() + rng.next() % 200);
    for (std::byte& b : bytes) b = i % 2 && &b < &bytes[kPreambleBytes] ? b : static_cast<std::byte>(rng.next());
    co_await asio::async_write(socket, asio::buffer(bytes), kAsTuple);
  }
  co_await loop->clock().sleep_for(10ms);
}

TEST_P(TcpKvWire, StrangersDoNoHarm) {
  Pages from(1, 1, 100), to(1, 1, 100);
  from.fill(1);
  auto sender = make(from.data), receiver = make(to.data);
  const auto level = spdlog::get_level();
  spdlog::set_level(spdlog::level::off);  // 100 refusals
  loop.run(strangers(*parse_kv_address(sender->address()), &loop));
  spdlog::set_level(level);
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  bool failed = false;
  loop.run(take_intact(in.get(), &from, &to, &failed, &loop));
  EXPECT_FALSE(failed);
  loop.run(out->close());
  loop.run(sender->shutdown());
}

// Half of them say nothing; the others ask for a stream that nobody will open.
asio::awaitable<void> idle_ones(KvAddress address, std::vector<Tcp::socket>* sockets, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    Tcp::socket& socket = sockets->emplace_back(co_await asio::this_coro::executor);
    auto [error] = co_await socket.async_connect({asio::ip::address_v4::loopback(), address.place.port}, kAsTuple);
    EXPECT_FALSE(error) << error.message();
    if (i % 2 == 0) continue;
    Bytes bytes;
    append(bytes, encode_preamble(Plane::kData));
    append(bytes, encode(StreamHello{{9, i, 1}, {1, 1}, address.incarnation, {1, 1, 100}, 1}));
    co_await asio::async_write(socket, asio::buffer(bytes), kAsTuple);
  }
}

TEST_P(TcpKvWire, SixHundredIdleConnectionsKeepNoStreamOut) {
  Pages from(1, 1, 100), to(1, 1, 100);
  from.fill(1);
  auto sender = make(from.data), receiver = make(to.data);
  std::vector<Tcp::socket> sockets;
  sockets.reserve(600);
  loop.run(idle_ones(*parse_kv_address(sender->address()), &sockets, 600));
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  bool failed = false;
  loop.run(take_intact(in.get(), &from, &to, &failed, &loop));
  EXPECT_FALSE(failed);
  loop.run(out->close());
  loop.run(sender->shutdown());
}

INSTANTIATE_TEST_SUITE_P(Kv, TcpKvWire, testing::Values("tcp"), param_name);

TEST(KvAddress, RoundTripsAndRefusesWhatIsNone) {
  const KvAddress address{{"prefill-0.prefill", 7001}, 0xfedcba9876543210};
  EXPECT_EQ(to_string(address), "tcp://prefill-0.prefill:7001#fedcba9876543210");
  const auto parsed = parse_kv_address(to_string(address));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->incarnation, address.incarnation);
  for (const char* bad : {"", "#", "tcp://a:1", "tcp://a:1#", "tcp://a:1#g", "tcp://a#1", "memory://a:1#2", "a:1#1",
                          "tcp://a:1#11112222333344445"})
    EXPECT_FALSE(parse_kv_address(bad).has_value()) << bad;
}

}  // namespace
}  // namespace runahead
