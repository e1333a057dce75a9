#include "transport/control/tcp_control.h"

#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <cstring>

#include "base/limits.h"
#include "tests/transport/run_loop.h"
#include "transport/control/frame.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;
using Kind = ControlEvent::Kind;

class TcpControl : public testing::Test {
 protected:
  void SetUp() override {
    auto created = TcpControlServer::create(loop_.executor(), loop_.clock(), {});
    ASSERT_TRUE(created.has_value()) << created.error().message;
    server_ = std::move(*created);
  }
  std::unique_ptr<TcpControlClient> client() {
    return std::make_unique<TcpControlClient>(loop_.executor(), loop_.clock(), HostPort{"127.0.0.1", server_->port()});
  }
  Tcp::endpoint endpoint() const { return {asio::ip::address_v4::loopback(), server_->port()}; }

  RunLoop loop_;
  std::unique_ptr<TcpControlServer> server_;
};

// One event that must come, of this kind.
Task<ControlEvent> expect(ControlPlane& plane, Kind kind, const RunLoop& loop) {
  auto event = co_await plane.receive(loop.in(5s));
  EXPECT_TRUE(event.has_value()) << (event ? "" : event.error().message);
  if (event) {
    EXPECT_EQ(static_cast<int>(event->kind), static_cast<int>(kind)) << event->payload;
  }
  co_return event;
}

asio::awaitable<void> exchange(TcpControlServer* server, TcpControlClient* client, RunLoop* loop) {
  auto peer = co_await client->connect(loop->in(5s));
  EXPECT_TRUE(peer.has_value()) << (peer ? "" : peer.error().message);
  if (!peer) co_return;
  co_await expect(*client, Kind::kConnected, *loop);
  auto connected = co_await expect(*server, Kind::kConnected, *loop);
  if (!connected) co_return;
  constexpr int kMessages = 10000;
  int at_server = 0, at_client = 0, sent = 0;
  while (at_client < kMessages) {
    for (int i = 0; i < 100 && sent < kMessages; ++i, ++sent)
      client->send(*peer, std::to_string(sent) + std::string(static_cast<size_t>(sent % 300), 'x'));
    for (; at_server < sent; ++at_server) {
      auto event = co_await expect(*server, Kind::kMessage, *loop);
      if (!event) co_return;
      EXPECT_EQ(event->payload, std::to_string(at_server) + std::string(static_cast<size_t>(at_server % 300), 'x'));
      server->send(event->peer, std::to_string(at_server));
    }
    for (; at_client < at_server; ++at_client) {
      auto event = co_await expect(*client, Kind::kMessage, *loop);
      if (!event) co_return;
      EXPECT_EQ(event->payload, std::to_string(at_client));
    }
  }
  server->send(connected->peer, "last words");
  server->disconnect(connected->peer);
  auto last = co_await expect(*client, Kind::kMessage, *loop);
  if (last) {
    EXPECT_EQ(last->payload, "last words");
  }
  co_await expect(*client, Kind::kDisconnected, *loop);
  co_await expect(*server, Kind::kDisconnected, *loop);
  co_await client->shutdown();
  co_await server->shutdown();
}

TEST_F(TcpControl, TenThousandMessagesKeepTheirOrderBothWaysAndDisconnectWritesWhatIsQueued) {
  auto c = client();
  loop_.run(exchange(server_.get(), c.get(), &loop_));
}

asio::awaitable<void> reconnect(TcpControlServer* server, TcpControlClient* client, RunLoop* loop) {
  auto first = co_await client->connect(loop->in(5s));
  auto second = co_await client->connect(loop->in(5s));
  EXPECT_TRUE(first && second && *first != *second);
  co_await expect(*client, Kind::kConnected, *loop);
  // The old link ends with its one kDisconnected, the new one begins with its kConnected; either may be first.
  auto a = co_await client->receive(loop->in(5s));
  auto b = co_await client->receive(loop->in(5s));
  EXPECT_TRUE(a && b && a->kind != b->kind && a->peer != b->peer);
  std::map<PeerId, std::vector<Kind>> seen;
  for (int i = 0; i < 3; ++i) {
    auto event = co_await server->receive(loop->in(5s));
    EXPECT_TRUE(event.has_value());
    if (event) seen[event->peer].push_back(event->kind);
  }
  EXPECT_EQ(seen.size(), 2u);
  for (auto& [peer, kinds] : seen) EXPECT_EQ(kinds.front(), Kind::kConnected);
  client->send(*first, "to the dead");
  client->send(*second, "to the living");
  auto message = co_await expect(*server, Kind::kMessage, *loop);
  if (message) {
    EXPECT_EQ(message->payload, "to the living");
  }
  co_await client->shutdown();
  co_await server->shutdown();
}

TEST_F(TcpControl, AReconnectIsANewPeerAndTheOldOneIsFenced) {
  auto c = client();
  loop_.run(reconnect(server_.get(), c.get(), &loop_));
}

// Connects as a stranger, writes `bytes`, and reads until the server closes.
asio::awaitable<void> stranger(Tcp::endpoint endpoint, std::string bytes, bool* closed) {
  Tcp::socket socket(co_await asio::this_coro::executor);
  co_await socket.async_connect(endpoint, kAsTuple);
  co_await asio::async_write(socket, asio::buffer(bytes), kAsTuple);
  std::array<char, 1024> buffer;
  for (;;) {
    auto [error, size] = co_await socket.async_read_some(asio::buffer(buffer), kAsTuple);
    if (error) break;
  }
  *closed = true;
}

std::string preamble(Plane plane) {
  const auto bytes = encode_preamble(plane);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

asio::awaitable<void> no_event(TcpControlServer* server, RunLoop* loop) {
  auto event = co_await server->receive(loop->in(50ms));
  EXPECT_FALSE(event.has_value());
  if (!event) {
    EXPECT_EQ(event.error().code, ErrorCode::kDeadlineExceeded);
  }
}

TEST_F(TcpControl, AStrangerIsClosedAndNeverSeen) {
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\n\r\n"), preamble(Plane::kData)}) {
    bool closed = false;
    loop_.run(stranger(endpoint(), bytes, &closed), 3s);
    EXPECT_TRUE(closed);
    loop_.run(no_event(server_.get(), &loop_));
  }
}

asio::awaitable<void> disconnected_because(TcpControlServer* server, RunLoop* loop, std::string why) {
  co_await expect(*server, Kind::kConnected, *loop);
  auto event = co_await expect(*server, Kind::kDisconnected, *loop);
  if (event) {
    EXPECT_NE(event->payload.find(why), std::string::npos) << event->payload;
  }
}

TEST_F(TcpControl, AnOversizeFrameEndsTheConnectionWithTheReason) {
  bool closed = false;
  loop_.run(stranger(endpoint(), preamble(Plane::kControl) + std::string("\x01\x00\x40\x00", 4), &closed), 3s);
  EXPECT_TRUE(closed);
  loop_.run(disconnected_because(server_.get(), &loop_, "over the limit"));
}

asio::awaitable<void> never_reads(TcpControlServer* server, Tcp::endpoint endpoint, RunLoop* loop) {
  Tcp::socket socket(co_await asio::this_coro::executor);
  co_await socket.async_connect(endpoint, kAsTuple);
  const std::string hello = preamble(Plane::kControl);
  co_await asio::async_write(socket, asio::buffer(hello), kAsTuple);
  auto connected = co_await expect(*server, Kind::kConnected, *loop);
  if (!connected) co_return;
  const std::string megabyte(1 << 20, 'x');
  int sent = 0;
  for (; sent < 1000; ++sent) {
    server->send(connected->peer, megabyte);
    auto event = co_await server->receive(loop->in(0ms));
    if (!event) continue;
    EXPECT_EQ(event->kind, Kind::kDisconnected);
    EXPECT_NE(event->payload.find("does not read"), std::string::npos) << event->payload;
    break;
  }
  EXPECT_GT(sent, 30);   // the bound is 64 MiB ...
  EXPECT_LT(sent, 100);  // ... and what the kernel takes
}

TEST_F(TcpControl, APeerThatDoesNotReadIsDroppedAtTheBound) {
  loop_.run(never_reads(server_.get(), endpoint(), &loop_));
}

asio::awaitable<void> flood(TcpControlServer* server, TcpControlClient* client, RunLoop* loop) {
  auto peer = co_await client->connect(loop->in(5s));
  if (!peer) co_return;
  co_await expect(*server, Kind::kConnected, *loop);
  constexpr int kTurns = 100;  // a thousand messages are sixteen writes
  const int total = static_cast<int>(limits::kControlInboxMessagesMax) * 3;
  int received = 0;
  for (int sent = 0; sent < total; ++sent) {
    client->send(*peer, std::to_string(sent));
    // The client's own queue is bounded, too: its writer has turns enough, however slow they are.
    for (int turn = 0; sent % 1000 == 999 && turn < kTurns; ++turn) co_await asio::post(asio::use_awaitable);
  }
  co_await loop->clock().sleep_for(50ms);  // the server's inbox is full now
  for (; received < total; ++received) {
    auto event = co_await expect(*server, Kind::kMessage, *loop);
    if (!event) break;
    EXPECT_EQ(event->payload, std::to_string(received));
  }
  EXPECT_EQ(received, total);
  co_await client->shutdown();
}

TEST_F(TcpControl, ASlowActorMakesItsPeersWaitAndLosesNothing) {
  auto c = client();
  loop_.run(flood(server_.get(), c.get(), &loop_));
}

// Connections that say nothing, or only the preamble, to the port of `endpoint`.
asio::awaitable<void> idle_ones(Tcp::endpoint endpoint, std::vector<Tcp::socket>* sockets, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    Tcp::socket& socket = sockets->emplace_back(co_await asio::this_coro::executor);
    auto [error] = co_await socket.async_connect(endpoint, kAsTuple);
    EXPECT_FALSE(error) << error.message();
    const std::string hello = preamble(Plane::kControl);
    if (i % 2 == 1) co_await asio::async_write(socket, asio::buffer(hello), kAsTuple);
  }
}

// The next message, whatever the strangers do.
asio::awaitable<void> next_message(ControlPlane* plane, std::string text, PeerId* from, RunLoop* loop) {
  for (;;) {
    auto event = co_await plane->receive(loop->in(5s));
    EXPECT_TRUE(event.has_value()) << "no message from " << text;
    if (!event) co_return;
    if (event->kind != Kind::kMessage) continue;
    EXPECT_EQ(event->payload, text);
    *from = event->peer;
    co_return;
  }
}

asio::awaitable<void> join_among_strangers(TcpControlServer* server, TcpControlClient* member, TcpControlClient* late,
                                           std::vector<Tcp::socket>* sockets, Tcp::endpoint endpoint, RunLoop* loop) {
  PeerId at_server = 0, ignored = 0;
  auto first = co_await member->connect(loop->in(5s));
  EXPECT_TRUE(first.has_value());
  if (!first) co_return;
  member->send(*first, "hello of the member");
  co_await next_message(server, "hello of the member", &at_server, loop);
  server->admit(at_server);
  co_await idle_ones(endpoint, sockets, 300);
  auto second = co_await late->connect(loop->in(5s));
  EXPECT_TRUE(second.has_value()) << "300 idle connections keep a worker out";
  if (!second) co_return;
  PeerId late_at_server = 0;
  late->send(*second, "hello of the late one");
  co_await next_message(server, "hello of the late one", &late_at_server, loop);
  server->admit(late_at_server);
  member->send(*first, std::string(1 << 20, 'm'));  // the member is where it was, and may send long ones
  co_await next_message(server, std::string(1 << 20, 'm'), &ignored, loop);
  server->send(at_server, "and back");
  co_await next_message(member, "and back", &ignored, loop);
}

TEST_F(TcpControl, ThreeHundredIdleConnectionsKeepNoWorkerOutAndNoMemberGoes) {
  std::vector<Tcp::socket> sockets;
  sockets.reserve(300);
  auto member = client(), late = client();
  loop_.run(join_among_strangers(server_.get(), member.get(), late.get(), &sockets, endpoint(), &loop_));
}

TEST_F(TcpControl, AStrangersFramesAreShort) {
  bool closed = false;
  std::string length(4, '\0');
  const uint32_t bytes = limits::kUnregisteredFrameBytesMax + 1;
  std::memcpy(length.data(), &bytes, sizeof bytes);  // little-endian, as this machine
  loop_.run(stranger(endpoint(), preamble(Plane::kControl) + length, &closed), 3s);
  EXPECT_TRUE(closed);
  loop_.run(disconnected_because(server_.get(), &loop_, "over the limit"));
}

TEST_F(TcpControl, APortInUseSaysSo) {
  TcpControlServer::Options options;
  options.listen.port = server_->port();
  auto second = TcpControlServer::create(loop_.executor(), loop_.clock(), options);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kAddressInUse);
  EXPECT_NE(second.error().message.find(std::to_string(server_->port())), std::string::npos);
}

TEST_F(TcpControl, ListensBeyondLoopbackOnlyWhenAllowed) {
  TcpControlServer::Options options{.listen = {"0.0.0.0", 0}};
  auto refused = TcpControlServer::create(loop_.executor(), loop_.clock(), options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  options.allow_remote = true;
  EXPECT_TRUE(TcpControlServer::create(loop_.executor(), loop_.clock(), options).has_value());
}

asio::awaitable<void> nobody_listens(TcpControlClient* client, ErrorCode code, RunLoop* loop) {
  auto peer = co_await client->connect(loop->in(300ms));
  EXPECT_FALSE(peer.has_value());
  if (!peer) {
    EXPECT_EQ(peer.error().code, code) << peer.error().message;
  }
}

TEST_F(TcpControl, ConnectFailsClearlyWhenNobodyListensOrAnswers) {
  Tcp::acceptor silent(loop_.io(), Tcp::endpoint(asio::ip::address_v4::loopback(), 0));  // accepts, says nothing
  TcpControlClient waits(loop_.executor(), loop_.clock(), {"127.0.0.1", silent.local_endpoint().port()});
  loop_.run(nobody_listens(&waits, ErrorCode::kDeadlineExceeded, &loop_));
  const uint16_t port = silent.local_endpoint().port();
  silent.close();
  TcpControlClient refused(loop_.executor(), loop_.clock(), {"localhost", port});
  loop_.run(nobody_listens(&refused, ErrorCode::kUnavailable, &loop_));
}

TEST(HostPortText, RoundTripsAndRefusesWhatIsNone) {
  for (const char* good : {"127.0.0.1:80", "[::1]:9000", "prefill-0.prefill:7000"}) {
    auto parsed = parse_host_port(good);
    ASSERT_TRUE(parsed.has_value()) << good;
    EXPECT_EQ(to_string(*parsed), good);
  }
  for (const char* bad : {"", ":", "host", "host:", "host:x", "host:70000", "host:-1", "::1:80", ":80", "host:80x"})
    EXPECT_FALSE(parse_host_port(bad).has_value()) << bad;
}

}  // namespace
}  // namespace runahead
