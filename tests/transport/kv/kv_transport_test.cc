// What every transport must do when nothing fails.
#include <boost/asio/detached.hpp>
#include <cstdio>
#include <cstring>

#include "tests/transport/kv/kv_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

asio::awaitable<void> send_all(KvOutbound* out, Pages* pages, uint64_t seed, RunLoop* loop, int* done) {
  for (const KvPageKey key : pages->keys(seed)) {
    const auto page = pages->at(key);
    const bool forwarded = (key.page + key.layer) % 2 == 0;  // its CRC is known
    out->post(key, page, forwarded ? std::optional(crc32c(page)) : std::nullopt);
    if (seed % 3 == 0) co_await loop->clock().sleep_for(100us);
  }
  auto drained = co_await out->drain(loop->in(10s));
  expect_ok(drained);
  EXPECT_EQ(out->stats().pages, static_cast<uint64_t>(pages->count()));
  co_await out->close();
  ++*done;
}

asio::awaitable<void> receive_all(KvInbound* in, Pages* pages, RunLoop* loop, int* done) {
  const int64_t count = pages->count();
  auto taken = co_await take_all(in, count, loop->in(10s));
  expect_ok(taken);
  auto more = co_await in->next(loop->in(10s));
  expect_code(more, ErrorCode::kInvalidArgument);
  EXPECT_EQ(in->stats().bytes, static_cast<uint64_t>(count) * pages->page_bytes);
  co_await in->close();
  ++*done;
}

asio::awaitable<void> until(const int* value, int target, RunLoop* loop) {
  const Deadline deadline = loop->in(20s);
  while (*value < target && loop->clock().now() < deadline.at) co_await loop->clock().sleep_for(1ms);
  EXPECT_EQ(*value, target);
}

class KvTransportTest : public KvTest {
 protected:
  void go(asio::awaitable<void> task) { asio::co_spawn(loop.io(), std::move(task), asio::detached); }
};

TEST_P(KvTransportTest, RandomPagesInRandomOrderArriveIntactAndOnceWhicheverEndOpensFirst) {
  SeededRng rng(7);
  for (int round = 0; round < 12; ++round) {
    const auto layers = static_cast<int32_t>(1 + rng.next() % 6), pages = static_cast<int32_t>(1 + rng.next() % 9);
    const size_t bytes = 64 * (1 + rng.next() % (round < 6 ? 8 : 4000));
    Pages from(layers, pages, bytes), to(layers, pages, bytes);
    from.fill(static_cast<uint64_t>(round) + 1);
    to.data = from.data;
    if (round % 3 == 2) {  // the last ones of each layer, perhaps none but of the last layer
      for (int32_t layer = 0; layer + 1 < layers; ++layer)
        from.first_pages.push_back(static_cast<int32_t>(rng.next() % static_cast<uint64_t>(pages + 1)));
      from.first_pages.push_back(0);
    }
    to.first_pages = from.first_pages;
    for (const KvPageKey key : to.keys(0)) std::ranges::fill(to.at(key), std::byte{0});
    auto sender = make(from.data), receiver = make(to.data);
    const AttemptId attempt{1, static_cast<uint64_t>(round), 1};
    int done = 0;
    std::unique_ptr<KvInbound> in;
    std::unique_ptr<KvOutbound> out;
    const auto open_in = [&] {
      in = std::move(*receiver->open_inbound(inbound(to, *sender, attempt)));
      go(receive_all(in.get(), &to, &loop, &done));
    };
    const auto open_out = [&] {
      out = std::move(*sender->open_outbound(outbound(from, *receiver, attempt)));
      go(send_all(out.get(), &from, static_cast<uint64_t>(round), &loop, &done));
    };
    if (round % 2) open_in();
    else open_out();
    loop.io().restart();
    loop.io().run_for(2ms);  // the first end starts alone
    if (round % 2) open_out();
    else open_in();
    loop.run(until(&done, 2, &loop));
    EXPECT_TRUE(from.data == to.data) << "every page of the stream, and no other";
    loop.run(sender->shutdown());
    loop.run(receiver->shutdown());
  }
}

asio::awaitable<void> take_by_layers(KvInbound* in, KvOutbound* out, Pages* from, Pages* to, RunLoop* loop, int* done) {
  const Pages sent = *from;
  for (int32_t layer = 0; layer < from->num_layers; ++layer) {
    for (int32_t i = 0; i < from->num_pages; ++i) {
      auto arrival = co_await in->next(loop->in(10s));
      expect_ok(arrival);
      if (!arrival) co_return;
      EXPECT_EQ(arrival->key.layer, layer) << "the lowest layer goes first, and no other is open";
      Pages copy = sent;
      EXPECT_TRUE(std::ranges::equal(to->at({0, arrival->key.page}), copy.at(arrival->key)));
    }
    auto none = co_await in->next(loop->in(20ms));
    expect_code(none, layer + 1 < from->num_layers ? ErrorCode::kDeadlineExceeded : ErrorCode::kInvalidArgument);
    auto let_go = co_await out->wait_for_sent_layers(layer + 1, loop->in(10s));
    expect_ok(let_go);
    for (int32_t page = 0; page < from->num_pages; ++page) std::ranges::fill(from->at({layer, page}), std::byte{0xEE});
    if (layer + 1 == from->num_layers) break;
    auto not_yet = co_await out->wait_for_sent_layers(layer + 2, loop->in(1ms));
    expect_code(not_yet, ErrorCode::kDeadlineExceeded);
    in->open_layers(layer + 2);
  }
  auto drained = co_await out->drain(loop->in(10s));
  expect_ok(drained);
  co_await in->close();
  co_await out->close();
  ++*done;
}

TEST_P(KvTransportTest, ALayerStaysWithItsSenderUntilItIsOpenAndIsLetGoWhenItIsSent) {
  for (const bool receiver_first : {true, false}) {
    Pages from(5, 3, 65536), to(1, 3, 65536);  // the receiver has memory for one layer
    from.fill(17);
    auto sender = make(from.data), receiver = make(to.data);
    const AttemptId attempt{4, 4, receiver_first ? 1u : 2u};
    KvInboundParams params = inbound(to, *sender, attempt);
    params.num_layers = 5;
    params.layers_open = 1;
    params.buffer = [&to](KvPageKey key) { return to.at({0, key.page}); };
    params.checksum = [&to](KvPageKey key) { return crc32c(to.at({0, key.page})); };
    std::unique_ptr<KvInbound> in;
    if (receiver_first) in = std::move(*receiver->open_inbound(params));
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, attempt)));
    for (const KvPageKey key : from.keys(1)) out->post(key, from.at(key), std::nullopt);
    if (!receiver_first) in = std::move(*receiver->open_inbound(params));
    int done = 0;
    go(take_by_layers(in.get(), out.get(), &from, &to, &loop, &done));
    loop.run(until(&done, 1, &loop));
  }
}

// Before the two have met, the greeting says it, or a word right behind it.
TEST_P(KvTransportTest, LayersMayBeOpenedBeforeTheSenderHasCome) {
  for (const auto early : {0us, 200us, 2000us}) {
    Pages from(4, 2, 4096), to(4, 2, 4096);
    from.fill(5);
    auto sender = make(from.data), receiver = make(to.data);
    const AttemptId attempt{4, 5, static_cast<uint32_t>(early.count())};
    KvInboundParams params = inbound(to, *sender, attempt);
    params.layers_open = 1;
    auto in = std::move(*receiver->open_inbound(params));
    auto out = std::move(*sender->open_outbound(outbound(from, *receiver, attempt)));
    loop.io().restart();
    loop.io().run_for(early);
    in->open_layers(2);
    in->open_layers(4);
    int done = 0;
    go(receive_all(in.get(), &to, &loop, &done));
    go(send_all(out.get(), &from, 4, &loop, &done));
    loop.run(until(&done, 2, &loop));
    EXPECT_TRUE(from.data == to.data);
  }
}

TEST_P(KvTransportTest, ManyStreamsAtOnceBothWaysShareTheTransports) {
  constexpr int kStreams = 24;
  std::vector<std::byte> pool;
  std::vector<Pages> from, to;
  for (int i = 0; i < kStreams; ++i) {
    from.emplace_back(4, 1 + i % 5, 8192);
    to.emplace_back(4, 1 + i % 5, 8192);
    from.back().fill(static_cast<uint64_t>(i));
  }
  auto a = make(pool), b = make(pool);
  std::vector<std::unique_ptr<KvInbound>> ins;
  std::vector<std::unique_ptr<KvOutbound>> outs;
  int done = 0;
  for (size_t i = 0; i < kStreams; ++i) {
    KvTransport& sender = i % 2 ? *a : *b;
    KvTransport& receiver = i % 2 ? *b : *a;
    const AttemptId attempt{1, i, 2};
    ins.push_back(std::move(*receiver.open_inbound(inbound(to[i], sender, attempt, {0, i}))));
    outs.push_back(std::move(*sender.open_outbound(outbound(from[i], receiver, attempt, {0, i}))));
    go(receive_all(ins.back().get(), &to[i], &loop, &done));
    go(send_all(outs.back().get(), &from[i], i, &loop, &done));
  }
  loop.run(until(&done, 2 * kStreams, &loop));
  for (size_t i = 0; i < kStreams; ++i) EXPECT_TRUE(from[i].data == to[i].data) << i;
}

asio::awaitable<void> forward_all(KvInbound* in, KvOutbound* out, Pages* pages, RunLoop* loop, int* done) {
  for (int i = 0; i < pages->num_layers * pages->num_pages; ++i) {
    auto arrival = co_await in->next(loop->in(10s));
    expect_ok(arrival);
    if (!arrival) co_return;
    out->post(arrival->key, pages->at(arrival->key), arrival->crc32c);
  }
  auto drained = co_await out->drain(loop->in(10s));
  expect_ok(drained);
  co_await in->close();
  co_await out->close();
  ++*done;
}

TEST_P(KvTransportTest, AMiddleRankForwardsWhatItReceivesInPlace) {
  Pages first(5, 7, 65536), middle(5, 7, 65536), last(5, 7, 65536);
  first.fill(3);
  auto a = make(first.data), b = make(middle.data), c = make(last.data);
  const AttemptId attempt{9, 8, 7};
  auto in_b = std::move(*b->open_inbound(inbound(middle, *a, attempt)));
  auto out_b = std::move(*b->open_outbound(outbound(middle, *c, attempt, {7, 7})));
  auto in_c = std::move(*c->open_inbound(inbound(last, *b, attempt, {7, 7})));
  auto out_a = std::move(*a->open_outbound(outbound(first, *b, attempt)));
  int done = 0;
  go(forward_all(in_b.get(), out_b.get(), &middle, &loop, &done));
  go(receive_all(in_c.get(), &last, &loop, &done));
  go(send_all(out_a.get(), &first, 3, &loop, &done));
  loop.run(until(&done, 3, &loop));
  EXPECT_TRUE(first.data == last.data);
}

TEST_P(KvTransportTest, TheLargestPageOf16MiBArrives) {
  Pages from(1, 2, limits::kPageBytesMax), to(1, 2, limits::kPageBytesMax);
  for (size_t i = 0; i < from.data.size(); i += 8) {
    const uint64_t word = i * 0x9E3779B97F4A7C15ull;
    std::memcpy(&from.data[i], &word, 8);
  }
  auto sender = make(from.data), receiver = make(to.data);
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, {1, 1, 1})));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, {1, 1, 1})));
  int done = 0;
  go(receive_all(in.get(), &to, &loop, &done));
  go(send_all(out.get(), &from, 1, &loop, &done));
  loop.run(until(&done, 2, &loop));
  EXPECT_TRUE(from.data == to.data);
}

asio::awaitable<void> partial(KvOutbound* out, KvInbound* in, Pages* pages, RunLoop* loop) {
  out->post({0, 1}, pages->at({0, 1}), std::nullopt);
  auto drained = co_await out->drain(loop->in(5s));
  expect_ok(drained);
  auto arrival = co_await in->next(loop->in(5s));
  expect_ok(arrival);
  auto none = co_await in->next(loop->in(20ms));
  expect_code(none, ErrorCode::kDeadlineExceeded);
  out->post({0, 0}, pages->at({0, 0}), std::nullopt);  // a missed wait does not end the stream
  auto late = co_await in->next(loop->in(5s));
  expect_ok(late);
  co_await in->close();
  co_await out->close();
  auto closed = co_await in->next(loop->in(5s));
  expect_code(closed, ErrorCode::kCancelled);
}

TEST_P(KvTransportTest, DrainOfSomePagesReturnsBeforeTheRestIsPostedAndNextEndsAtItsDeadline) {
  Pages from(1, 3, 4096), to(1, 3, 4096);
  from.fill(1);
  auto sender = make(from.data), receiver = make(to.data);
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, {1, 1, 1})));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, {1, 1, 1})));
  loop.run(partial(out.get(), in.get(), &from, &loop));
}

TEST_P(KvTransportTest, ThePinIsHeldUntilCloseHasReturned) {
  Pages from(1, 2, 4096), to(1, 2, 4096);
  auto sender = make(from.data), receiver = make(to.data);
  KvInboundParams in_params = inbound(to, *sender, {1, 1, 1});
  KvOutboundParams out_params = outbound(from, *receiver, {1, 1, 1});
  const std::weak_ptr<const void> in_pin = in_params.pin, out_pin = out_params.pin;
  auto in = std::move(*receiver->open_inbound(std::move(in_params)));
  auto out = std::move(*sender->open_outbound(std::move(out_params)));
  loop.io().restart();
  loop.io().run_for(20ms);
  EXPECT_FALSE(in_pin.expired());
  EXPECT_FALSE(out_pin.expired());
  loop.run(in->close());
  loop.run(out->close());
  EXPECT_TRUE(in_pin.expired());
  EXPECT_TRUE(out_pin.expired());
}

TEST_P(KvTransportTest, RefusesStreamsThatAreOutOfBounds) {
  Pages pages(1, 1, 64);
  auto transport = make(pages.data);
  for (int what = 0; what < 8; ++what) {
    KvInboundParams params = inbound(pages, *transport, {1, 1, 1});
    if (what == 0) params.num_layers = 0;
    if (what == 1) params.prefix_pages = limits::kKvPagesMax + 1;
    if (what == 2) params.page_bytes = limits::kPageBytesMax + 1;
    if (what == 3) params.num_layers = -1;
    if (what == 4) params.first_pages = {0, 0};
    if (what == 5) params.first_pages = {2};
    if (what == 6) params.first_pages = {-1};
    if (what == 7) params.first_pages = {1};  // nothing is left
    auto opened = transport->open_inbound(params);
    expect_code(opened, ErrorCode::kInvalidArgument);
  }
}

TEST_P(KvTransportTest, PrintsItsThroughput) {
  Pages from(32, 8, 256 << 10), to(32, 8, 256 << 10);
  from.fill(1);
  auto sender = make(from.data), receiver = make(to.data);
  auto in = std::move(*receiver->open_inbound(inbound(to, *sender, {1, 1, 1})));
  auto out = std::move(*sender->open_outbound(outbound(from, *receiver, {1, 1, 1})));
  int done = 0;
  go(receive_all(in.get(), &to, &loop, &done));
  go(send_all(out.get(), &from, 1, &loop, &done));
  loop.run(until(&done, 2, &loop));
  const KvStreamStats stats = in->stats();
  std::printf("    %-30s %6.2f GB/s, both ends on one thread, %zu KiB pages, CRC at both ends; %s\n", GetParam(),
              static_cast<double>(stats.bytes) / stats.span_seconds / 1e9, from.page_bytes >> 10,
              sender->describe().c_str());
}

INSTANTIATE_TEST_SUITE_P(Kv, KvTransportTest, kTransports, param_name);
INSTANTIATE_TEST_SUITE_P(KvAuto, KvTransportTest, testing::Values("auto"), param_name);

}  // namespace
}  // namespace runahead
