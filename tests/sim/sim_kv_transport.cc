#include "sim_kv_transport.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/limits.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;
constexpr Duration kRetry = 20ms;       // while a link is cut or a peer is paused

Error lost(const char* why) { return {ErrorCode::kWorkerLost, why, {}}; }

}  // namespace

// The ends of a stream. Each belongs to its process: only that process's tasks change it.
struct SimInEnd {
  SimInEnd(Process& p, Clock& clock, KvInboundParams params, std::span<const std::byte> registered)
      : process(p), changed(p.executor(), clock), pool(registered), ledger(p.executor(), clock, std::move(params)) {}
  Process& process;
  Wake changed;
  std::span<const std::byte> pool;
  KvInboundLedger ledger;
  std::weak_ptr<SimOutEnd> sender;
  bool closing = false, closed = false;

  void fail(Error error) {
    ledger.fail(std::move(error));
    changed.notify();
  }
};

struct SimOutEnd {
  SimOutEnd(Process& p, Clock& clock, KvOutboundParams params)
      : process(p), changed(p.executor(), clock), ledger(p.executor(), clock, std::move(params)) {}
  Process& process;
  Wake changed;
  KvOutboundLedger ledger;
  std::weak_ptr<SimInEnd> receiver;
  NodeId receiver_node = 0;
  bool attached = false, moving = false, closed = false;
  Time last_arrival{0};

  void fail(Error error) {
    ledger.fail(std::move(error));
    changed.notify();
  }
};

void SimKvHub::meet(const In& in, Time connect_by) {
  if (in->closing || in->ledger.error() || !in->process.reachable()) return;
  auto fail_in = [&](Error error) { in->process.post([in, error] { in->fail(error); }); };
  const auto found = transports_.find(in->ledger.params().sender_address);
  if (found == transports_.end()) return fail_in(lost("the sender is gone"));
  SimKvTransport& sender = *found->second;
  const NodeId from = in->process.node(), to = sender.process_.node();
  if (network_.is_cut(from, to) || network_.is_cut(to, from) || sender.process_.state() == Process::State::kPaused) {
    if (world_.now() >= connect_by) return fail_in(lost("the sender does not answer"));
    return world_.at(world_.now() + kRetry, [this, in, connect_by] { meet(in, connect_by); });
  }
  const AttemptId attempt = in->ledger.params().attempt;
  const auto out = sender.outbound_.find(attempt);
  if (out == sender.outbound_.end()) {
    sender.waiting_[attempt] = {in, connect_by};
    return world_.at(connect_by, [in] {
      if (in->sender.expired()) in->process.post([in] { in->fail(error_of(StreamReply::kUnknownStream)); });
    });
  }
  const Out sending = out->second;
  if (sending->ledger.params().stream_token != in->ledger.params().stream_token)
    return fail_in(error_of(StreamReply::kWrongToken));
  if (sending->attached) return fail_in(error_of(StreamReply::kAlreadyOpen));
  if (sending->closed || sending->ledger.error()) return fail_in(error_of(StreamReply::kUnknownStream));
  attach(in, sending);
}

void SimKvHub::attach(const In& in, const Out& out) {
  if (in->ledger.geometry() != out->ledger.geometry()) {
    in->process.post([in] { in->fail(error_of(StreamReply::kOtherGeometry)); });
    out->process.post([out] { out->fail(error_of(StreamReply::kOtherGeometry)); });
    return;
  }
  in->sender = out;
  out->receiver = in;
  out->receiver_node = in->process.node();
  out->attached = true;
  out->process.post([this, out, count = in->ledger.layers_open()] { open_layers(out, count); });
}

void SimKvHub::open_layers(const Out& out, int32_t count) {
  RUNAHEAD_CHECK(out->ledger.open_layers(count).has_value(), "both ends have one geometry");
  out->changed.notify();
  move_pages(out);
}

// Runs in the sender's process: one page at a time is copied out of its memory and takes its time on the link.
void SimKvHub::move_pages(const Out& out) {
  if (!out->attached || out->moving || out->closed || out->ledger.error() || !out->ledger.has_page()) return;
  if (!out->process.reachable()) return;
  const KvOutboundLedger::Page page = out->ledger.take();
  const auto header = encode(page.header);
  std::vector<std::byte> wire(header.begin(), header.end());
  wire.insert(wire.end(), page.bytes.begin(), page.bytes.end());

  Time& link_free = link_free_[{out->process.node(), out->receiver_node}];
  Time begin = std::max(world_.now(), link_free);
  if (world_.rng.chance(weather_.stall_probability)) begin += world_.rng.exponential(weather_.stall_mean);
  if (begin - world_.now() > limits::kPageTransferTimeout) {
    const Error error{ErrorCode::kDeadlineExceeded, "a KV page made no progress", {}};
    world_.at(world_.now() + limits::kPageTransferTimeout, [this, out, error] {
      out->process.post([out, error] { out->fail(error); });
      tell_receiver(out, error);
    });
    out->moving = true;  // for ever
    return;
  }
  link_free = begin + from_seconds(static_cast<double>(wire.size()) / weather_.bytes_per_second);
  out->moving = true;
  const bool breaks = world_.rng.chance(weather_.break_probability);
  send_page(out, std::move(wire), link_free, breaks);
  world_.at(link_free, [this, out, page] {
    out->process.post([this, out, page] {
      out->moving = false;
      out->ledger.sent(page);
      out->changed.notify();
      move_pages(out);
    });
  });
}

void SimKvHub::send_page(const Out& out, std::vector<std::byte> wire, Time sent_at, bool breaks) {
  const In in = out->receiver.lock();
  if (!in) return;
  auto deliver_at = [&](Time when, std::vector<std::byte> bytes, bool break_here) {
    world_.at(when, [this, in, out, bytes = std::move(bytes), break_here, when]() mutable {
      arrive(in, out, std::move(bytes), break_here, when);
    });
  };
  Time when = sent_at + world_.rng.exponential(weather_.latency_mean);
  if (world_.rng.chance(weather_.reorder_probability)) when += world_.rng.exponential(20 * weather_.latency_mean);
  else when = out->last_arrival = std::max(out->last_arrival, when);
  if (!old_page_.empty() && world_.rng.chance(weather_.foreign_probability)) deliver_at(when, old_page_, false);
  if (world_.rng.chance(0.05)) old_page_ = wire;
  if (world_.rng.chance(weather_.corrupt_probability)) spoil(wire);
  deliver_at(when, std::move(wire), breaks);
}

void SimKvHub::spoil(std::vector<std::byte>& wire) {
  const uint64_t bit = world_.rng.below(wire.size() * 8);
  wire[bit / 8] ^= std::byte(1u << (bit % 8));
  ++corrupted_pages_;
}

void SimKvHub::arrive(const In& in, const Out& out, std::vector<std::byte> wire, bool breaks, Time held_since) {
  if (network_.is_cut(out->process.node(), in->process.node())) {
    if (world_.now() - held_since >= kUserTimeout) {
      out->process.post([out] { out->fail(lost("connection timed out")); });
      in->process.post([in] { in->fail(lost("connection timed out")); });
      return;
    }
    return world_.at(world_.now() + kRetry, [this, in, out, wire = std::move(wire), breaks, held_since]() mutable {
      arrive(in, out, std::move(wire), breaks, held_since);
    });
  }
  in->process.post([this, in, wire = std::move(wire), breaks] { receive(in, wire, breaks); });
  if (breaks) out->process.post([out] { out->fail(lost("connection reset")); });
}

// Runs in the receiver's process.
void SimKvHub::receive(const In& in, std::span<const std::byte> wire, bool breaks) {
  if (in->closed || !in->process.reachable()) return;
  const auto bytes = wire.subspan(kKvPageHeaderBytes);
  const auto header = parse_page_header(wire.first<kKvPageHeaderBytes>());
  if (in->closing || in->ledger.error()) {
    // Too late for the actor, but the memory is still the transport's, and it may still write there.
    const KvInboundParams& params = in->ledger.params();
    if (header && header->attempt == params.attempt && in->ledger.geometry().contains(header->key))
      std::memcpy(params.buffer(header->key).data(), bytes.data(), bytes.size() / 2);
    return;
  }
  const auto buffer = header ? in->ledger.claim(*header) : std::unexpected(header.error());
  Result<void> taken;
  if (buffer) {
    RUNAHEAD_CHECK(
        buffer->data() >= in->pool.data() && buffer->data() + buffer->size() <= in->pool.data() + in->pool.size(),
        "a page goes into the registered pool");
    std::memcpy(buffer->data(), bytes.data(), breaks ? bytes.size() / 2 : bytes.size());
    if (breaks) taken = std::unexpected(lost("connection reset"));
    else taken = ignore_checksum ? in->ledger.commit(*header, header->page_crc32c) : in->ledger.commit(*header);
  } else {
    taken = std::unexpected(buffer.error());
  }
  if (!taken) {
    tell_sender(in, taken.error().code == ErrorCode::kCorrupt ? error_of(StreamReply::kCorruptPage) : taken.error());
    return in->fail(taken.error());
  }
  in->changed.notify();
  if (!in->ledger.complete()) return;
  if (const Out out = in->sender.lock())
    world_.at(soon(), [out] {
      out->process.post([out] {
        if (out->closed || out->ledger.error()) return;
        out->ledger.confirm();
        out->changed.notify();
      });
    });
}

void SimKvHub::tell_sender(const In& in, Error error) {
  if (const Out out = in->sender.lock())
    world_.at(soon(), [out, error] { out->process.post([out, error] { out->fail(error); }); });
}

void SimKvHub::tell_receiver(const Out& out, Error error) {
  // Behind the pages that are on their way.
  if (const In in = out->receiver.lock())
    world_.at(std::max(soon(), out->last_arrival), [in, error] { in->process.post([in, error] { in->fail(error); }); });
}

void SimKvHub::drop_process(const Process& process) {
  for (auto it = transports_.begin(); it != transports_.end();) {
    SimKvTransport& transport = *it->second;
    if (&transport.process_ != &process) {
      ++it;
      continue;
    }
    for (auto& [attempt, in] : transport.inbound_) {
      if (!world_.rng.chance(weather_.unnoticed_probability)) tell_sender(in, lost("connection reset"));
      in->fail(lost("this process is gone"));
    }
    for (auto& [attempt, out] : transport.outbound_) {
      if (!world_.rng.chance(weather_.unnoticed_probability)) tell_receiver(out, lost("connection reset"));
      out->fail(lost("this process is gone"));
    }
    for (auto& [attempt, waiting] : transport.waiting_) {
      const In in = waiting.first;
      world_.at(soon(), [in] { in->process.post([in] { in->fail(lost("connection reset")); }); });
    }
    transport.waiting_.clear();
    it = transports_.erase(it);
  }
}

// The actor's handles.
class SimKvInbound final : public KvInbound {
 public:
  SimKvInbound(SimKvTransport& transport, std::shared_ptr<SimInEnd> end)
      : transport_(transport), end_(std::move(end)) {}
  ~SimKvInbound() override { RUNAHEAD_CHECK(end_->closed, "close() first"); }

  Task<KvArrival> next(Deadline deadline) override {
    for (;;) {
      const Time now = transport_.clock_.now();
      auto arrival = co_await end_->ledger.next({Time(0)});  // the production ledger, which never waits this way
      const bool nothing = !arrival && !end_->ledger.error() && arrival.error().code == ErrorCode::kDeadlineExceeded;
      if (!nothing || now >= deadline.at) co_return arrival;
      co_await end_->changed.wait_until(deadline);
    }
  }

  void open_layers(int32_t count) override {
    end_->ledger.open_layers(count);
    SimKvHub& hub = transport_.hub_;
    if (const auto out = end_->sender.lock())
      hub.world_.at(hub.soon(),
                    [&hub, out, count] { out->process.post([&hub, out, count] { hub.open_layers(out, count); }); });
  }

  asio::awaitable<void> close() override {
    if (end_->closed) co_return;
    const bool complete = end_->ledger.complete();
    end_->closing = true;
    end_->fail({ErrorCode::kCancelled, "the KV stream is closed", {}});
    SimKvHub& hub = transport_.hub_;
    if (!complete && end_->process.reachable()) hub.tell_sender(end_, lost("the receiver closed the KV stream"));
    // The transport may go on writing for a while; the actor must keep the pages until it does not.
    co_await transport_.clock_.sleep_for(hub.world_.rng.duration(Duration(0), hub.weather_.close_max));
    end_->closed = true;
    end_->ledger.release();
    transport_.inbound_.erase(end_->ledger.params().attempt);
  }
  KvStreamStats stats() const override { return end_->ledger.stats(); }

 private:
  SimKvTransport& transport_;
  std::shared_ptr<SimInEnd> end_;
};

class SimKvOutbound final : public KvOutbound {
 public:
  SimKvOutbound(SimKvTransport& transport, std::shared_ptr<SimOutEnd> end)
      : transport_(transport), end_(std::move(end)) {}
  ~SimKvOutbound() override { RUNAHEAD_CHECK(end_->closed, "close() first"); }

  void post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc) override {
    end_->ledger.post(key, page, crc);
    transport_.hub_.move_pages(end_);
  }

  Task<void> drain(Deadline deadline) override {
    return until(deadline, [end = end_] { return end->ledger.drain({Time(0)}); });
  }
  Task<void> wait_for_sent_layers(int32_t count, Deadline deadline) override {
    return until(deadline, [end = end_, count] { return end->ledger.wait_for_sent_layers(count, {Time(0)}); });
  }

  asio::awaitable<void> close() override {
    if (end_->closed) co_return;
    const bool confirmed = end_->ledger.confirmed();
    end_->fail({ErrorCode::kCancelled, "the KV stream is closed", {}});
    SimKvHub& hub = transport_.hub_;
    if (!confirmed && end_->process.reachable()) hub.tell_receiver(end_, lost("the sender closed the KV stream"));
    co_await transport_.clock_.sleep_for(hub.world_.rng.duration(Duration(0), hub.weather_.close_max));
    end_->closed = true;
    end_->ledger.release();
    transport_.outbound_.erase(end_->ledger.params().attempt);
  }
  KvStreamStats stats() const override { return end_->ledger.stats(); }

 private:
  // The production ledger, which never waits this way.
  Task<void> until(Deadline deadline, std::function<Task<void>()> ask) {
    for (;;) {
      const Time now = transport_.clock_.now();
      auto done = co_await ask();
      const bool pending = !done && !end_->ledger.error() && done.error().code == ErrorCode::kDeadlineExceeded;
      if (!pending || now >= deadline.at) co_return done;
      co_await end_->changed.wait_until(deadline);
    }
  }

  SimKvTransport& transport_;
  std::shared_ptr<SimOutEnd> end_;
};

SimKvTransport::SimKvTransport(SimKvHub& hub, Process& process)
    : hub_(hub),
      process_(process),
      clock_(process),
      address_("sim://" + std::to_string(process.node()) + "#" + std::to_string(process.incarnation())) {
  hub_.transports_[address_] = this;
}

SimKvTransport::~SimKvTransport() {
  RUNAHEAD_CHECK(inbound_.empty() && outbound_.empty(), "streams are closed before their transport");
  hub_.transports_.erase(address_);
}

Result<void> SimKvTransport::register_memory(std::span<std::byte> pool) {
  pool_ = pool;
  return {};
}

Result<std::unique_ptr<KvInbound>> SimKvTransport::open_inbound(KvInboundParams params) {
  const AttemptId attempt = params.attempt;
  if (inbound_.contains(attempt))
    return fail(ErrorCode::kInvalidArgument, "this attempt has a KV stream to here already");
  auto end = std::make_shared<SimInEnd>(process_, clock_, std::move(params), pool_);
  inbound_[attempt] = end;
  const Time connect_by = hub_.world_.now() + limits::kConnectTimeout;
  hub_.world_.at(hub_.soon(), [hub = &hub_, end, connect_by] { hub->meet(end, connect_by); });
  return std::make_unique<SimKvInbound>(*this, std::move(end));
}

Result<std::unique_ptr<KvOutbound>> SimKvTransport::open_outbound(KvOutboundParams params) {
  const AttemptId attempt = params.attempt;
  if (outbound_.contains(attempt))
    return fail(ErrorCode::kInvalidArgument, "this attempt has a KV stream from here already");
  auto end = std::make_shared<SimOutEnd>(process_, clock_, std::move(params));
  outbound_[attempt] = end;
  process_.at(clock_.now() + limits::kConnectTimeout, [end] {
    if (!end->attached && !end->closed)
      end->fail({ErrorCode::kDeadlineExceeded, "no receiver opened its end of the KV stream in time", {}});
  });
  const auto waiting = waiting_.find(attempt);
  if (waiting != waiting_.end()) {
    const auto [receiver, connect_by] = waiting->second;
    waiting_.erase(waiting);
    hub_.world_.at(hub_.soon(), [hub = &hub_, receiver, connect_by] { hub->meet(receiver, connect_by); });
  }
  return std::make_unique<SimKvOutbound>(*this, std::move(end));
}

asio::awaitable<void> SimKvTransport::shutdown() { co_return; }

}  // namespace runahead::test
