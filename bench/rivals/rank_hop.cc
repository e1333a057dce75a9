#include "bench/rivals/rank_hop.h"

#include "base/crc32c.h"

namespace runahead::rivals {
namespace {

// Of the attempt, and the same on both ends: a benchmark keeps out nobody.
constexpr StreamToken kStreamToken{0x72697661, 0x6c73};

}  // namespace

Result<void> HopOut::open(KvTransport& transport) {
  stream_ = TRY(
      transport.open_outbound({.attempt = shape_.attempt,
                               .stream_token = kStreamToken,
                               .receiver_address = shape_.peer,
                               .prefix_pages = shape_.pages,
                               .num_layers = shape_.num_layers,
                               .page_bytes = shape_.page_bytes,
                               .checksum = [memory = shape_.memory](KvPageKey key) { return crc32c(memory(key)); }}));
  return {};
}

void HopOut::knows(KvPageKey key, uint32_t crc32c) { crc_[index(key)] = crc32c; }

void HopOut::post(int32_t layer, int32_t begin, int32_t end) {
  for (KvPageKey key{layer, begin}; key.page < end; ++key.page)
    stream_->post(key, shape_.memory(key), crc_[index(key)]);
}

Result<void> HopIn::open(KvTransport& transport, Gate& gate, Deadline deadline,
                         std::function<void(const KvArrival&)> on_page) {
  stream_ = TRY(
      transport.open_inbound({.attempt = shape_.attempt,
                              .stream_token = kStreamToken,
                              .sender_address = shape_.peer,
                              .buffer = shape_.memory,
                              .prefix_pages = shape_.pages,
                              .num_layers = shape_.num_layers,
                              .layers_open = shape_.layers_open,
                              .page_bytes = shape_.page_bytes,
                              .checksum = [memory = shape_.memory](KvPageKey key) { return crc32c(memory(key)); }}));
  gate.spawn(take(deadline, std::move(on_page)));
  return {};
}

asio::awaitable<void> HopIn::take(Deadline deadline, std::function<void(const KvArrival&)> on_page) {
  while (!manifest_.complete() && !error_) {
    const Result<KvArrival> arrival = co_await stream_->next(deadline);
    const Result<void> marked = arrival ? manifest_.mark(arrival->key) : std::unexpected(arrival.error());
    if (!marked) error_ = marked.error();
    else if (on_page) on_page(*arrival);
    arrived_.notify();
  }
}

Task<void> HopIn::wait(int32_t layer, int32_t count) {
  while (manifest_.ready_pages(layer) < count) {
    if (error_) co_return std::unexpected(*error_);
    co_await arrived_.wait();
  }
  co_return Result<void>{};
}

asio::awaitable<void> HopOut::close() {
  if (stream_) co_await stream_->close();
}

asio::awaitable<void> HopIn::close() {
  if (stream_) co_await stream_->close();
}

}  // namespace runahead::rivals
