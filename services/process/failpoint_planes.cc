#include "services/process/failpoint_planes.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "actors/messages.h"

namespace runahead {
namespace {

using When = Failpoint::When;
using Way = Failpoint::Way;

constexpr Duration kLeaves = std::chrono::milliseconds(5);  // a link writes what it was given in the loop's next turns

class FailpointControl final : public ControlPlane {
 public:
  FailpointControl(ControlPlane& plane, std::unique_ptr<ControlPlane> owned, std::shared_ptr<Failpoint> failpoint,
                   asio::any_io_executor executor, Clock& clock)
      : owned_(std::move(owned)),
        plane_(plane),
        failpoint_(std::move(failpoint)),
        executor_(std::move(executor)),
        clock_(clock) {}

  Task<ControlEvent> receive(Deadline deadline) override {
    if (!taken_.empty() && failpoint_->hit(taken_, When::kAfter, Way::kReceived)) failpoint_->act();
    taken_ = {};
    auto event = co_await plane_.receive(deadline);
    if (!event || event->kind != ControlEvent::Kind::kMessage) co_return event;
    taken_ = message_name(event->payload);
    if (failpoint_->hit(taken_, When::kBefore, Way::kReceived)) failpoint_->act();
    co_return event;
  }

  void send(PeerId peer, std::string payload) override {
    const std::string_view name = message_name(payload);
    if (failpoint_->hit(name, When::kBefore, Way::kSent)) failpoint_->act();
    plane_.send(peer, std::move(payload));
    if (failpoint_->hit(name, When::kAfter, Way::kSent))
      asio::co_spawn(executor_, act_soon(failpoint_, &clock_), asio::detached);
  }

  void disconnect(PeerId peer) override { plane_.disconnect(peer); }
  void admit(PeerId peer) override { plane_.admit(peer); }

 private:
  static asio::awaitable<void> act_soon(std::shared_ptr<Failpoint> failpoint, Clock* clock) {
    co_await clock->sleep_for(kLeaves);
    failpoint->act();
  }

  std::unique_ptr<ControlPlane> owned_;
  ControlPlane& plane_;
  std::shared_ptr<Failpoint> failpoint_;
  asio::any_io_executor executor_;
  Clock& clock_;
  std::string_view taken_;  // the name of the message that the actor works on
};

void pass(Failpoint& failpoint, std::string_view step, When when, Way way) {
  if (failpoint.hit(step, when, way)) failpoint.act();
}

class FailpointInbound final : public KvInbound {
 public:
  FailpointInbound(std::unique_ptr<KvInbound> stream, std::shared_ptr<Failpoint> failpoint)
      : stream_(std::move(stream)), failpoint_(std::move(failpoint)) {}

  // Behind a page: when the next one is asked for. Behind the last one: when the stream is closed.
  Task<KvArrival> next(Deadline deadline) override {
    if (std::exchange(taken_, false)) pass(*failpoint_, "kv_page", When::kAfter, Way::kReceived);
    auto arrival = co_await stream_->next(deadline);
    taken_ = arrival.has_value();
    if (taken_) pass(*failpoint_, "kv_page", When::kBefore, Way::kReceived);
    co_return arrival;
  }
  void open_layers(int32_t count) override { stream_->open_layers(count); }
  asio::awaitable<void> close() override {
    pass(*failpoint_, "kv_end", When::kBefore, Way::kReceived);
    co_await stream_->close();
    pass(*failpoint_, "kv_end", When::kAfter, Way::kReceived);
  }
  KvStreamStats stats() const override { return stream_->stats(); }

 private:
  std::unique_ptr<KvInbound> stream_;
  std::shared_ptr<Failpoint> failpoint_;
  bool taken_ = false;
};

class FailpointOutbound final : public KvOutbound {
 public:
  FailpointOutbound(std::unique_ptr<KvOutbound> stream, std::shared_ptr<Failpoint> failpoint)
      : stream_(std::move(stream)), failpoint_(std::move(failpoint)) {}

  void post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c) override {
    pass(*failpoint_, "kv_page", When::kBefore, Way::kSent);
    stream_->post(key, page, crc32c);
    pass(*failpoint_, "kv_page", When::kAfter, Way::kSent);
  }
  Task<void> wait_for_sent_layers(int32_t count, Deadline deadline) override {
    return stream_->wait_for_sent_layers(count, deadline);
  }
  Task<void> drain(Deadline deadline) override {
    pass(*failpoint_, "kv_end", When::kBefore, Way::kSent);
    auto drained = co_await stream_->drain(deadline);
    pass(*failpoint_, "kv_end", When::kAfter, Way::kSent);
    co_return drained;
  }
  asio::awaitable<void> close() override { return stream_->close(); }
  KvStreamStats stats() const override { return stream_->stats(); }

 private:
  std::unique_ptr<KvOutbound> stream_;
  std::shared_ptr<Failpoint> failpoint_;
};

class FailpointKv final : public KvTransport {
 public:
  FailpointKv(std::unique_ptr<KvTransport> kv, std::shared_ptr<Failpoint> failpoint)
      : kv_(std::move(kv)), failpoint_(std::move(failpoint)) {}

  std::string name() const override { return kv_->name(); }
  std::string describe() const override { return kv_->describe(); }
  std::string address() const override { return kv_->address(); }
  void advertise(const std::string& host) override { kv_->advertise(host); }
  Result<void> register_memory(std::span<std::byte> pool) override { return kv_->register_memory(pool); }
  Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) override {
    pass(*failpoint_, "kv_begin", When::kBefore, Way::kReceived);
    auto stream = TRY(kv_->open_inbound(std::move(params)));
    pass(*failpoint_, "kv_begin", When::kAfter, Way::kReceived);
    return std::make_unique<FailpointInbound>(std::move(stream), failpoint_);
  }
  Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) override {
    pass(*failpoint_, "kv_begin", When::kBefore, Way::kSent);
    auto stream = TRY(kv_->open_outbound(std::move(params)));
    pass(*failpoint_, "kv_begin", When::kAfter, Way::kSent);
    return std::make_unique<FailpointOutbound>(std::move(stream), failpoint_);
  }
  asio::awaitable<void> shutdown() override { return kv_->shutdown(); }

 private:
  std::unique_ptr<KvTransport> kv_;
  std::shared_ptr<Failpoint> failpoint_;
};

}  // namespace

std::unique_ptr<ControlPlane> with_failpoint(ControlPlane& plane, std::shared_ptr<Failpoint> failpoint,
                                             asio::any_io_executor executor, Clock& clock) {
  return std::make_unique<FailpointControl>(plane, nullptr, std::move(failpoint), std::move(executor), clock);
}

std::unique_ptr<ControlPlane> with_failpoint(std::unique_ptr<ControlPlane> plane, std::shared_ptr<Failpoint> failpoint,
                                             asio::any_io_executor executor, Clock& clock) {
  ControlPlane& inner = *plane;
  return std::make_unique<FailpointControl>(inner, std::move(plane), std::move(failpoint), std::move(executor), clock);
}

std::unique_ptr<KvTransport> with_failpoint(std::unique_ptr<KvTransport> kv, std::shared_ptr<Failpoint> failpoint) {
  return std::make_unique<FailpointKv>(std::move(kv), std::move(failpoint));
}

}  // namespace runahead
