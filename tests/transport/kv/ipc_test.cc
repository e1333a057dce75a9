// CUDA IPC's own ways to fail: a receiver that never takes what it is offered, and two workers that do not share a device.
#include "tests/transport/kv/hop_peer.h"
#include "tests/transport/kv/kv_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

class IpcTest : public KvTest {
 protected:
  IpcTest() { connect_timeout = transfer_timeout = 300ms; }
};

asio::awaitable<void> expect_end(KvOutbound* out, ErrorCode code, RunLoop* loop) {
  expect_code(co_await out->drain(loop->in(5s)), code);
  co_await out->close();
}

TEST_P(IpcTest, AReceiverThatTakesNothingIsADeadlineExceeded) {
  Pages from(1, 2, 4096);
  auto sender = make(from.data);
  auto out = std::move(*sender->open_outbound(outbound(from, *sender, kAttempt)));
  const KvAddress address = *parse_kv_address(sender->address(), "ipc");
  const StreamHello hello{kAttempt, kToken, address.incarnation, {1, 2, 4096}, 1};
  auto receiver = connect_to(loop, address);
  asio::write(receiver, asio::buffer(encode(frame_of(HopFrameKind::kOpen, 1, encode(hello)))));
  loop.io().restart();
  loop.io().run_for(50ms);  // the lane stands: from here on it is the hop that watches its pages
  for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
  loop.run(expect_end(out.get(), ErrorCode::kDeadlineExceeded, &loop));
  loop.run(sender->shutdown());
}

TEST_P(IpcTest, TwoDevicesAreUnsupportedAndTheReceiverIsToldSo) {
  Pages from(1, 1, 4096), to(1, 1, 4096);
  auto sender = make(from.data);
  KvTransportOptions other = options();
  other.device.id = "another";
  auto receiver = std::move(*make_kv_transport("ipc", other, loop.executor(), loop.clock()));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, kAttempt)));
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, kAttempt)));
  out->post({0, 0}, from.at({0, 0}), std::nullopt);
  Result<KvArrival> arrival = fail(ErrorCode::kInternal, "not asked");
  const auto take = [](KvInbound* stream, RunLoop* l, Result<KvArrival>* told) -> asio::awaitable<void> {
    *told = co_await stream->next(l->in(5s));
    co_await stream->close();
  };
  loop.run(take(in.get(), &loop, &arrival));
  expect_code(arrival, ErrorCode::kUnsupported);
  EXPECT_NE(arrival.error().message.find("--transport nccl"), std::string::npos) << arrival.error().message;
  loop.run(out->close());
  loop.run(sender->shutdown());
  loop.run(receiver->shutdown());
}

INSTANTIATE_TEST_SUITE_P(Kv, IpcTest, testing::Values("ipc"), param_name);

}  // namespace
}  // namespace runahead
