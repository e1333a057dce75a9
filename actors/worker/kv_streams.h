// PrefixReceiver and PageSender: the two K/V hops of one attempt, over KvTransport. A rank has both; the decode worker has
// the second where it gives the chain's beginning; all receive by this one path (docs/ARCHITECTURE.md, idea 5).
//   threads  the actor's executor only, but for ready_pages().
//   owner    the attempt. close() both before they die: the lease's pages are in the transport's hands until then.
#pragma once

#include <memory>
#include <optional>

#include "actors/messages.h"
#include "actors/worker/kv_manifest.h"
#include "base/async/wake.h"
#include "model/engine.h"
#include "model/kv_pages.h"
#include "transport/kv/kv_transport.h"

namespace runahead {

// Both ends of a hop know these.
struct HopShape {
  AttemptId attempt;
  int32_t num_layers = 0;
  PageRange pages;  // of each layer; the receiver has those before them
  size_t page_bytes = 0;
  std::vector<int32_t> first_pages = {};  // [num_layers] the first that the receiver's tokens see; empty: pages.begin
};
// reader: the first token of the receiver's; of a decode worker's that of the page which it writes first, so that prompts which
// begin with the same full pages can share them. Layers with a window give only the pages within its reach.
HopShape hop_shape(AttemptId attempt, const ModelShape& model, PageRange pages, int32_t reader, size_t page_bytes);

class PageSender {
 public:
  Result<void> open(KvTransport& transport, const HopShape& shape, const KvHop& to, std::shared_ptr<KvLease> kv);
  // Of one layer: they may not change any more. Those that the peer has are left out, here as below.
  void post(int32_t layer, PageRange pages);
  // A page of the prefix, at the moment it arrives (cut-through). Its checksum goes on unchanged, end to end.
  void forward(const KvArrival& arrival);
  // Returns when nothing reads the pages of layers [0, count) any more; every one of them has been posted or will be.
  Task<void> wait_for_sent_layers(int32_t count, Deadline deadline);
  // Returns when the peer has every page.
  Task<void> drain(Deadline deadline);
  // A drain() that waits then returns an error.
  asio::awaitable<void> close();
  KvStreamStats stats() const { return stream_ ? stream_->stats() : stats_; }

 private:
  void post(KvPageKey key, std::optional<uint32_t> crc32c);

  std::shared_ptr<KvLease> kv_;
  int32_t first_ = 0;  // page; streams count from it
  std::vector<int32_t> first_pages_;  // HopShape's
  std::unique_ptr<KvOutbound> stream_;
  bool closing_ = false;
  KvStreamStats stats_;
};

class PrefixReceiver {
 public:
  // pages_come: counts them, with those of others.
  PrefixReceiver(asio::any_io_executor executor, Clock& clock, std::shared_ptr<uint64_t> pages_come)
      : pages_come_(std::move(pages_come)), arrived_(std::move(executor), clock) {}

  // Posts the buffers of every page of the layers that the lease has at once. Where none shall come, there is no peer, and all
  // is complete.
  Result<void> open(KvTransport& transport, const HopShape& shape, const KvHop& from, std::shared_ptr<KvLease> kv);
  // The buffers of layers [0, count) are free now.
  void open_layers(int32_t count) {
    if (stream_) stream_->open_layers(count);
  }
  // Takes pages as they arrive and hands them on to `downstream`, if there is one, until all have come.
  Task<void> relay(PageSender* downstream, Deadline deadline);
  int32_t ready_pages(int32_t layer) const { return manifest_.ready_pages(layer); }  // on the lane, too
  // The n > have for which pages [0, n) of the layer are there. Ends for certain: relay() ends by its deadline.
  Task<int32_t> wait_for_pages(int32_t layer, int32_t have);
  Task<void> wait_until_complete();
  // Ends relay() and wait_for_pages() with an error, unless they are done.
  asio::awaitable<void> close();
  KvStreamStats stats() const { return stream_ ? stream_->stats() : stats_; }

 private:
  KvManifest manifest_;
  int32_t first_ = 0;  // page; streams count from it
  std::unique_ptr<KvInbound> stream_;
  std::optional<Error> error_;
  std::shared_ptr<uint64_t> pages_come_;
  Wake arrived_;
  KvStreamStats stats_;
};

}  // namespace runahead
