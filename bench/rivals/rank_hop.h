// HopOut, HopIn: the two ends of one way between two ranks of a rival. Both know the same geometry: so many layers of so many
// pages, in an order of their own, and where each one lies. Everything is one KvTransport stream, as in the chain.
//   threads  the rank's executor.
//   owner    the run (rank_run.h), which closes both ends before the memory goes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/worker/kv_manifest.h"
#include "base/async/gate.h"
#include "base/async/wake.h"
#include "transport/kv/kv_transport.h"

namespace runahead::rivals {

struct HopShape {
  AttemptId attempt;
  std::string peer;  // KvTransport::address()
  int32_t num_layers = 0;
  int32_t pages = 0;  // a layer
  int32_t layers_open = 0;  // as in KvInboundParams
  size_t page_bytes = 0;
  std::function<std::span<std::byte>(KvPageKey)> memory;  // of key.page, which counts from 0 to `pages`
};

class HopOut {
 public:
  explicit HopOut(HopShape shape)
      : shape_(std::move(shape)), crc_(static_cast<size_t>(shape_.num_layers) * static_cast<size_t>(shape_.pages)) {}

  Result<void> open(KvTransport& transport);
  int32_t pages() const { return shape_.pages; }
  // A page that came from another rank keeps the checksum it came with.
  void knows(KvPageKey key, uint32_t crc32c);
  // Pages [begin, end) of the layer do not change any more.
  void post(int32_t layer, int32_t begin, int32_t end);
  void post(int32_t layer) { post(layer, 0, shape_.pages); }
  // Every page has been posted, and the peer has them all.
  Task<void> drain(Deadline deadline) { return stream_->drain(deadline); }
  asio::awaitable<void> close();
  uint64_t bytes() const { return stream_ ? stream_->stats().bytes : 0; }

 private:
  size_t index(KvPageKey key) const {
    return static_cast<size_t>(key.layer) * static_cast<size_t>(shape_.pages) + static_cast<size_t>(key.page);
  }
  HopShape shape_;
  std::vector<std::optional<uint32_t>> crc_;  // [num_layers, pages]
  std::unique_ptr<KvOutbound> stream_;
};

class HopIn {
 public:
  HopIn(HopShape shape, asio::any_io_executor executor, Clock& clock)
      : shape_(std::move(shape)), manifest_(shape_.num_layers, shape_.pages), arrived_(executor, clock) {}

  // on_page: what else is to be done with a page the moment it comes.
  Result<void> open(KvTransport& transport, Gate& gate, Deadline deadline,
                    std::function<void(const KvArrival&)> on_page);
  int32_t pages() const { return shape_.pages; }
  void open_layers(int32_t count) { stream_->open_layers(count); }
  int32_t ready(int32_t layer) const { return manifest_.ready_pages(layer); }
  // Pages [0, count) of the layer are there. Ends for certain: the stream ends by its deadline.
  Task<void> wait(int32_t layer, int32_t count);
  asio::awaitable<void> close();

 private:
  asio::awaitable<void> take(Deadline deadline, std::function<void(const KvArrival&)> on_page);

  HopShape shape_;
  KvManifest manifest_;
  Wake arrived_;
  std::optional<Error> error_;
  std::unique_ptr<KvInbound> stream_;
};

}  // namespace runahead::rivals
