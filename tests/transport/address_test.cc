// Addresses: what people write, names with several addresses, listeners on all of them, connects that try all of them.
#include <boost/asio/detached.hpp>

#include "base/limits.h"
#include "tests/transport/run_loop.h"
#include "transport/host_port.h"
#include "transport/kv/kv_address.h"
#include "transport/tcp_socket.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

const asio::ip::address kV4 = asio::ip::address_v4::loopback();
const asio::ip::address kV6 = asio::ip::address_v6::loopback();

bool has_ipv6_loopback(RunLoop& loop) { return listen_on(loop.executor(), {{kV6, 0}}).has_value(); }

#define SKIP_WITHOUT_IPV6(loop) \
  if (!has_ipv6_loopback(loop)) GTEST_SKIP() << "this machine has no ::1"

TEST(HostPort, TakesNamesLiteralsAndEveryAddress) {
  for (const auto& [text, host, port, printed] : std::vector<std::tuple<const char*, const char*, int, const char*>>{
           {"localhost:8000", "localhost", 8000, "localhost:8000"},
           {"127.0.0.1:0", "127.0.0.1", 0, "127.0.0.1:0"},
           {"[::1]:7070", "::1", 7070, "[::1]:7070"},
           {"[::]:7070", "::", 7070, "[::]:7070"},
           {"[fe80::1%lo]:1", "fe80::1%lo", 1, "[fe80::1%lo]:1"},
           {"*:80", "*", 80, "*:80"}}) {
    const auto parsed = parse_host_port(text);
    ASSERT_TRUE(parsed.has_value()) << text << ": " << parsed.error().message;
    EXPECT_EQ(parsed->host, host);
    EXPECT_EQ(parsed->port, port);
    EXPECT_EQ(to_string(*parsed), printed);
  }
}

TEST(HostPort, RefusesWhatIsNoAddressWithTheForm) {
  for (const char* bad : {"", ":", "a", "a:", "a:x", "a:65536", "a:-1", "::1:80", "[::1]", "[]:80", "[a.example]:80",
                          "fd00::5", "a:1 ", "[::1]x:80", "a b:1", " a:1", "a\tb:1", "a\n:1"}) {
    const auto parsed = parse_host_port(bad);
    ASSERT_FALSE(parsed.has_value()) << bad;
    EXPECT_NE(parsed.error().message.find("host:port"), std::string::npos);
  }
  EXPECT_FALSE(parse_host_port(std::string(256, 'a') + ":1").has_value());
}

TEST(HostPort, ADestinationHasANameAndAPort) {
  EXPECT_EQ(parse_destination("coordinator:7070")->port, 7070);
  EXPECT_EQ(parse_destination("[::1]:7070")->host, "::1");
  for (const char* bad : {"coordinator:0", "*:77", "0.0.0.0:77", "[::]:77", "coordinator"})
    EXPECT_FALSE(parse_destination(bad).has_value()) << bad;
}

TEST(HostPort, KnowsWildcardsAndLoopback) {
  for (const char* host : {"*", "0.0.0.0", "::", "0:0::0", "::ffff:0.0.0.0"}) EXPECT_TRUE(is_wildcard(host)) << host;
  for (const char* host : {"localhost", "127.0.0.1", "::1", "10.0.0.1"}) EXPECT_FALSE(is_wildcard(host)) << host;
  for (const char* host : {"localhost", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"})
    EXPECT_TRUE(is_loopback(host)) << host;
  for (const char* host : {"*", "0.0.0.0", "10.0.0.1", "prefill-0"}) EXPECT_FALSE(is_loopback(host)) << host;
}

TEST(HostPort, KnowsKvAddressesThatMeanAnotherMachineToEach) {
  for (const char* own : {"tcp://127.0.0.1:1#5", "ucx-1.13://[::1]:1#5 tcp://[::1]:2#5", "tcp://localhost:1#5"})
    EXPECT_TRUE(leads_to_own_machine(own)) << own;
  for (const char* other :
       {"tcp://10.0.0.1:1#5", "tcp://prefill-0:1#5", "memory://1#5", "kv-1", "", "#://", "tcp://#1"})
    EXPECT_FALSE(leads_to_own_machine(other)) << other;
}

TEST(HostPort, BothEndsOfAStreamFindTheTransportInCommon) {
  const std::string rich = "ucx-1.13://a:1#5 tcp://a:2#5", newer = "ucx-1.22://b:1#6 tcp://b:2#6", poor = "tcp://c:2#7";
  EXPECT_EQ(part_in_common(rich, "ucx-1.13://d:1#8 tcp://d:2#8"), "ucx-1.13://d:1#8");
  EXPECT_EQ(part_in_common(rich, newer), "tcp://b:2#6");
  EXPECT_EQ(part_in_common(newer, rich), "tcp://a:2#5");
  EXPECT_EQ(part_in_common(poor, rich), "tcp://a:2#5");
  for (const char* none : {"", "memory://1#1", "tcp", "://", " "}) EXPECT_EQ(part_in_common(rich, none), "") << none;
  EXPECT_EQ(part_in_common("", ""), "");
  EXPECT_EQ(transport_in_common(rich, rich), "ucx");
  EXPECT_EQ(transport_in_common(rich, newer), "tcp");
  EXPECT_EQ(transport_in_common("memory://1#1", "memory://2#1"), "memory");
}

TEST(Advertise, TakesAHostWithOrWithoutAPort) {
  for (const auto& [text, host, port] : std::vector<std::tuple<const char*, const char*, int>>{
           {"10.1.2.3", "10.1.2.3", 7071},
           {"prefill-0.prefill", "prefill-0.prefill", 7071},
           {"fd00::5", "fd00::5", 7071},       // a pod's address as Kubernetes writes it
           {"[fd00::5]", "fd00::5", 7071},
           {"[fd00::5]:9", "fd00::5", 9},
           {"gateway.example:17071", "gateway.example", 17071}}) {
    const auto parsed = parse_advertised(text, 7071);
    ASSERT_TRUE(parsed.has_value()) << text << ": " << parsed.error().message;
    EXPECT_EQ(parsed->host, host) << text;
    EXPECT_EQ(parsed->port, port) << text;
  }
}

TEST(Advertise, RefusesWhatNobodyCanConnectTo) {
  for (const char* bad : {"0.0.0.0", "::", "[::]", "*", ":7071", "0.0.0.0:7071", "[::]:7071", "10.0.0.1:0", "a:b", "[]",
                          "", "a b", "a b:1", "a\x7f"})
    EXPECT_FALSE(parse_advertised(bad, 7071).has_value()) << bad;
}

TEST(Advertise, IsDerivedFromThisEndOfTheConnectionToTheCoordinator) {
  EXPECT_EQ(advertised_by("0.0.0.0", "10.1.2.3").value(), "10.1.2.3");
  EXPECT_EQ(advertised_by("::", "::ffff:10.1.2.3").value(), "10.1.2.3");
  EXPECT_EQ(advertised_by("*", "fd00::5").value(), "fd00::5");
  EXPECT_EQ(advertised_by("0.0.0.0", "127.0.0.1").value(), "127.0.0.1");
  for (const auto& [listen, local] :
       std::vector<std::pair<const char*, const char*>>{{"0.0.0.0", "fd00::5"},   // IPv4 alone is listened on
                                                        {"*", "fe80::1%eth0"},    // of its own link only
                                                        {"*", ""}}) {
    const auto refused = advertised_by(listen, local);
    ASSERT_FALSE(refused.has_value()) << listen << " " << local;
    EXPECT_NE(refused.error().message.find("--advertise"), std::string::npos);
  }
}

asio::awaitable<void> accept_one(Tcp::acceptor* acceptor, int* accepted) {
  auto [error, socket] = co_await acceptor->async_accept(kAsTuple);
  if (!error) ++*accepted;
}

asio::awaitable<void> connect_and_expect(std::vector<Tcp::endpoint> endpoints, asio::ip::address reached,
                                         RunLoop* loop) {
  auto socket = co_await connect_any(std::move(endpoints), loop->clock(), loop->in(5s));
  EXPECT_TRUE(socket.has_value()) << (socket ? "" : socket.error().message);
  if (socket) EXPECT_EQ(socket->remote_endpoint().address(), reached);
}

TEST(Connect, TriesEveryAddressInOrder) {
  RunLoop loop;
  SKIP_WITHOUT_IPV6(loop);
  for (const auto& [listening, other] : {std::pair(kV4, kV6), std::pair(kV6, kV4)}) {
    TcpListener listener = *listen_on(loop.executor(), {{listening, 0}});
    loop.run(connect_and_expect({{other, listener.port()}, {listening, listener.port()}}, listening, &loop));
    loop.run(connect_and_expect({{listening, listener.port()}, {other, listener.port()}}, listening, &loop));
  }
}

// Its queue is full: further SYNs are dropped, as by a firewall.
TEST(Connect, AnAddressThatLeadsNowhereDelaysTheNextOneBriefly) {
  RunLoop loop;
  Tcp::acceptor full(loop.io(), Tcp::endpoint(kV4, 0));
  full.listen(0);
  std::vector<Tcp::socket> waiting;
  for (int i = 0; i < 4; ++i) {
    waiting.emplace_back(loop.io());
    waiting.back().open(Tcp::v4());
    waiting.back().native_non_blocking(true);
    const Tcp::endpoint place = full.local_endpoint();
    (void)::connect(waiting.back().native_handle(), place.data(), static_cast<socklen_t>(place.size()));
  }
  TcpListener listener = *listen_on(loop.executor(), {{asio::ip::make_address("127.0.0.2"), 0}});
  const Time begin = loop.clock().now();
  loop.run(connect_and_expect({full.local_endpoint(), {asio::ip::make_address("127.0.0.2"), listener.port()}},
                              asio::ip::make_address("127.0.0.2"), &loop));
  EXPECT_GE(loop.clock().now() - begin, limits::kFirstConnectTimeout)
      << "the first address answered: nothing was tested";
  EXPECT_LT(loop.clock().now() - begin, limits::kConnectTimeout);
}

asio::awaitable<void> expect_refusal(std::vector<Tcp::endpoint> endpoints, RunLoop* loop) {
  auto socket = co_await connect_any(endpoints, loop->clock(), loop->in(5s));
  EXPECT_FALSE(socket.has_value());
  if (socket) co_return;
  EXPECT_EQ(name(socket.error().code), name(ErrorCode::kUnavailable));
  for (const Tcp::endpoint& endpoint : endpoints)
    EXPECT_NE(socket.error().message.find(to_string(endpoint)), std::string::npos) << socket.error().message;
}

TEST(Connect, SaysOfEveryAddressWhyItFailed) {
  RunLoop loop;
  TcpListener listener = *listen_on(loop.executor(), {{kV4, 0}});
  const uint16_t port = listener.port();
  listener.close();
  loop.run(expect_refusal({{kV4, port}, {asio::ip::make_address("127.0.0.2"), port}}, &loop));
}

TEST(Listen, TakesEveryAddressOnOnePort) {
  RunLoop loop;
  SKIP_WITHOUT_IPV6(loop);
  TcpListener listener = *listen_on(loop.executor(), {{kV4, 0}, {kV6, 0}});
  ASSERT_EQ(listener.acceptors.size(), 2u);
  int accepted = 0;
  for (Tcp::acceptor& acceptor : listener.acceptors)
    asio::co_spawn(loop.io(), accept_one(&acceptor, &accepted), asio::detached);
  for (const auto& address : {kV4, kV6}) loop.run(connect_and_expect({{address, listener.port()}}, address, &loop));
  while (accepted < 2 && loop.io().run_one_for(5s) > 0) {
  }
  EXPECT_EQ(accepted, 2);
}

TEST(Listen, EveryAddressMeansBothFamilies) {
  RunLoop loop;
  SKIP_WITHOUT_IPV6(loop);
  for (const char* host : {"*", "::"}) {
    auto listener = listen_tcp(loop.executor(), {host, 0}, true);
    ASSERT_TRUE(listener.has_value()) << listener.error().message;
    for (const auto& address : {kV4, kV6}) loop.run(connect_and_expect({{address, listener->port()}}, address, &loop));
  }
  EXPECT_FALSE(listen_tcp(loop.executor(), {"*", 0}, false).has_value()) << "beyond loopback without being asked to";
}

TEST(Listen, LeavesOutAnAddressThatIsNotOfThisMachine) {
  RunLoop loop;
  const asio::ip::address elsewhere = asio::ip::make_address("192.0.2.77");
  const auto some = listen_on(loop.executor(), {{elsewhere, 0}, {kV4, 0}});
  ASSERT_TRUE(some.has_value()) << some.error().message;
  EXPECT_EQ(some->acceptors.size(), 1u);
  const auto none = listen_on(loop.executor(), {{elsewhere, 0}});
  ASSERT_FALSE(none.has_value());
  EXPECT_NE(none.error().message.find("192.0.2.77:0"), std::string::npos) << none.error().message;
}

TEST(Listen, SaysWhichAddressIsTaken) {
  RunLoop loop;
  SKIP_WITHOUT_IPV6(loop);
  const TcpListener first = *listen_on(loop.executor(), {{kV6, 0}});
  const auto second = listen_on(loop.executor(), {{kV4, first.port()}, {kV6, first.port()}});
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(name(second.error().code), name(ErrorCode::kAddressInUse));
  EXPECT_NE(second.error().message.find("::1"), std::string::npos) << second.error().message;
}

asio::awaitable<void> resolve_wildcard(RunLoop* loop) {
  for (const char* host : {"*", "0.0.0.0", "::"}) {
    const HostPort wildcard{host, 7};  // GCC 12: no braces within a co_await
    auto found = co_await resolve_host(wildcard, loop->clock(), loop->in(5s));
    EXPECT_TRUE(found.has_value() && found->size() == 2);
    if (!found || found->size() != 2) continue;
    EXPECT_EQ(found->front(), Tcp::endpoint(kV4, 7)) << host;
    EXPECT_EQ(found->back(), Tcp::endpoint(kV6, 7)) << host;
  }
}

TEST(Connect, AWildcardIsThisMachine) {
  RunLoop loop;
  loop.run(resolve_wildcard(&loop));
}

TEST(Print, IPv4InIPv6sClothesIsIPv4) {
  EXPECT_EQ(to_string(Tcp::endpoint(asio::ip::make_address("::ffff:10.0.0.1"), 80)), "10.0.0.1:80");
  EXPECT_EQ(to_string(Tcp::endpoint(asio::ip::make_address("fd00::1"), 80)), "[fd00::1]:80");
}

}  // namespace
}  // namespace runahead
