// Workers that leave the transport open: whatever each machine allows, their streams meet.
#include "transport/kv/any_kv_transport.h"

#include "tests/transport/kv/kv_fixture.h"
#include "transport/kv/tcp_kv_transport.h"
#include "transport/tcp_socket.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

class AnyKvTransportTest : public KvTest {
 protected:
  // A machine on which nothing but tcp starts.
  std::unique_ptr<KvTransport> tcp_alone() {
    std::vector<std::unique_ptr<KvTransport>> members;
    members.push_back(*TcpKvTransport::create(options(), loop.executor(), loop.clock()));
    return std::make_unique<AnyKvTransport>(std::move(members));
  }
};

asio::awaitable<void> move_pages(KvInbound* in, KvOutbound* out, Pages* from, RunLoop* loop) {
  for (const KvPageKey key : from->keys(3)) out->post(key, from->at(key), std::nullopt);
  auto taken = co_await take_all(in, from->num_layers * from->num_pages, loop->in(10s));
  expect_ok(taken);
  auto drained = co_await out->drain(loop->in(10s));
  expect_ok(drained);
  co_await in->close();
  co_await out->close();
}

TEST_P(AnyKvTransportTest, MeetsAMachineThatHasLess) {
  for (const bool sender_has_less : {true, false}) {
    auto rich = make_kv_transport("auto", options(), loop.executor(), loop.clock());
    ASSERT_TRUE(rich.has_value()) << rich.error().message;
    auto poor = tcp_alone();
    EXPECT_EQ((*rich)->name(), poor->name()) << "else the coordinator refuses one of them";
    KvTransport& sender = sender_has_less ? *poor : **rich;
    KvTransport& receiver = sender_has_less ? **rich : *poor;
    Pages from(2, 3, 4096), to(2, 3, 4096);
    from.fill(5);
    expect_ok(sender.register_memory(from.data));
    expect_ok(receiver.register_memory(to.data));
    const AttemptId attempt{1, 1, 1};
    auto in = std::move(*receiver.open_inbound(inbound(to, sender, attempt)));
    auto out = std::move(*sender.open_outbound(outbound(from, receiver, attempt)));
    loop.run(move_pages(in.get(), out.get(), &from, &loop));
    EXPECT_TRUE(from.data == to.data);
    loop.run(sender.shutdown());
    loop.run(receiver.shutdown());
  }
}

TEST_P(AnyKvTransportTest, SaysWhenThereIsNothingInCommon) {
  auto poor = tcp_alone();
  Pages to(1, 1, 64);
  KvInboundParams params = inbound(to, *poor, {1, 1, 1});
  for (const char* address : {"", "ucx-9.9://a:1#1", "memory://1#1 x", "tcp"}) {
    params.sender_address = address;
    const auto refused = poor->open_inbound(params);
    expect_code(refused, ErrorCode::kInvalidArgument);
  }
  loop.run(poor->shutdown());
}

TEST_P(AnyKvTransportTest, WithAFixedPortIsTcpAlone) {
  KvTransportOptions fixed = options();
  {
    RunLoop other;
    fixed.listen.port = listen_tcp(other.executor(), {"127.0.0.1", 0}, false)->port();
  }
  auto made = make_kv_transport("auto", fixed, loop.executor(), loop.clock());
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_EQ((*made)->address().find("ucx"), std::string::npos) << (*made)->address();
  loop.run((*made)->shutdown());
}

// What a worker on every address does once it knows by which one it reaches its coordinator.
TEST_P(AnyKvTransportTest, AdvertisesOneHostOnAllMembers) {
  KvTransportOptions everywhere = options();
  everywhere.listen.host = "*";
  everywhere.allow_remote = true;
  auto made = make_kv_transport("auto", everywhere, loop.executor(), loop.clock());
  ASSERT_TRUE(made.has_value()) << made.error().message;
  (*made)->advertise("fd00::5");
  EXPECT_EQ((*made)->address().find('*'), std::string::npos) << (*made)->address();
  EXPECT_TRUE((*made)->address().starts_with("tcp://[fd00::5]:")) << "UCX has no IPv6: " << (*made)->address();
  loop.run((*made)->shutdown());
}

INSTANTIATE_TEST_SUITE_P(Kv, AnyKvTransportTest, testing::Values("auto"), param_name);

}  // namespace
}  // namespace runahead
