// PageSender: what is held back stays until it is let go, and then every page goes, with the checksum it came with.
#include "actors/worker/kv_streams.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/transport/run_loop.h"
#include "transport/kv/memory_kv_transport.h"
#include "transport/kv/select_transport.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

struct End {
  End(RunLoop& loop, uint64_t incarnation, std::shared_ptr<MemoryKvHub> hub)
      : pool(64, 8),
        kv(*make_kv_transport("memory", {.incarnation = incarnation, .hub = std::move(hub)}, loop.executor(),
                              loop.clock())) {
    EXPECT_TRUE(kv->register_memory(pool.memory()));
  }
  KvPool pool;
  std::unique_ptr<KvTransport> kv;
};

asio::awaitable<void> hold_and_let_go(PageSender* sender, KvInbound* in, KvLease* from, RunLoop* loop) {
  std::memset(from->page(0, 0).data(), 1, 64);
  std::memset(from->page(0, 1).data(), 2, 64);
  sender->hold();
  sender->forward({{0, 0}, from->checksum(0, 0)});
  sender->post(0, {1, 2});
  const auto nothing = co_await in->next(loop->in(20ms));
  EXPECT_EQ(nothing.error().code, ErrorCode::kDeadlineExceeded);
  sender->let_go();
  for (int i = 0; i < 2; ++i) {
    const auto arrival = co_await in->next(loop->in(5s));
    EXPECT_TRUE(arrival && arrival->crc32c == from->checksum(arrival->key.layer, arrival->key.page));
  }
  sender->post(1, {0, 2});
  for (int i = 0; i < 2; ++i) {
    const auto arrival = co_await in->next(loop->in(5s));
    EXPECT_TRUE(arrival && arrival->key.layer == 1) << "nothing is held any more";
  }
  const auto drained = co_await sender->drain(loop->in(5s));
  EXPECT_TRUE(drained.has_value());
  co_await in->close();
  co_await sender->close();
}

TEST(PageSender, HoldsBackUntilItIsLetGo) {
  RunLoop loop;
  const auto hub = std::make_shared<MemoryKvHub>();
  End a(loop, 1, hub), b(loop, 2, hub);
  const std::shared_ptr<KvLease> from = *a.pool.lease(2, 128), to = *b.pool.lease(2, 128);
  PageSender sender;
  const HopShape shape{{1, 1, 1}, 2, 2, 64};
  ASSERT_TRUE(sender.open(*a.kv, shape, {b.kv->address(), 7, 1}, from));
  auto in = *b.kv->open_inbound({.attempt = shape.attempt,
                                 .stream_token = 7,
                                 .sender_address = a.kv->address(),
                                 .pin = to,
                                 .buffer = [&](KvPageKey key) { return to->page(key.layer, key.page); },
                                 .prefix_pages = 2,
                                 .num_layers = 2,
                                 .page_bytes = 64,
                                 .checksum = [&](KvPageKey key) { return to->checksum(key.layer, key.page); }});
  loop.run(hold_and_let_go(&sender, in.get(), from.get(), &loop));
  EXPECT_EQ(std::memcmp(from->page(0, 1).data(), to->page(0, 1).data(), 64), 0);
}

}  // namespace
}  // namespace runahead
