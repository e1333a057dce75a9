// InboundHandle, OutboundHandle: what an actor holds of a stream of the transports between processes. The stream itself is
// shared with its coroutines and transfers; a handle that dies without close() abandons it, and the pin lives on until
// nothing touches the pages any more.
#pragma once

#include <functional>
#include <memory>

#include "transport/kv/kv_ledger.h"

namespace runahead {

// Stream: ledger(), open_layers(), abandon(), close(). `on_gone` is called when the handle dies.
template <class Stream>
class InboundHandle final : public KvInbound {
 public:
  InboundHandle(std::shared_ptr<Stream> stream, std::function<void()> on_gone)
      : stream_(std::move(stream)), on_gone_(std::move(on_gone)) {}
  ~InboundHandle() override {
    stream_->abandon();
    on_gone_();
  }
  Task<KvArrival> next(Deadline deadline) override { return stream_->ledger().next(deadline); }
  void open_layers(int32_t count) override { stream_->open_layers(count); }
  asio::awaitable<void> close() override { return stream_->close(); }
  KvStreamStats stats() const override { return stream_->ledger().stats(); }

 private:
  std::shared_ptr<Stream> stream_;
  std::function<void()> on_gone_;
};

// Stream: as above and post(). `on_gone` is called at close() and when the handle dies: from then on the transport
// matches no receiver with this stream.
template <class Stream>
class OutboundHandle final : public KvOutbound {
 public:
  OutboundHandle(std::shared_ptr<Stream> stream, std::function<void()> on_gone)
      : stream_(std::move(stream)), on_gone_(std::move(on_gone)) {}
  ~OutboundHandle() override {
    stream_->abandon();
    on_gone_();
  }
  void post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c) override {
    stream_->post(key, page, crc32c);
  }
  Task<void> wait_for_sent_layers(int32_t count, Deadline deadline) override {
    return stream_->ledger().wait_for_sent_layers(count, deadline);
  }
  Task<void> drain(Deadline deadline) override { return stream_->ledger().drain(deadline); }
  asio::awaitable<void> close() override {
    on_gone_();
    return stream_->close();
  }
  KvStreamStats stats() const override { return stream_->ledger().stats(); }

 private:
  std::shared_ptr<Stream> stream_;
  std::function<void()> on_gone_;
};

}  // namespace runahead
