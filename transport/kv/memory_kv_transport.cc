#include "transport/kv/memory_kv_transport.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <cstring>

#include "base/check.h"
#include "transport/kv/kv_ledger.h"

namespace runahead {
namespace {

constexpr auto kFrozenPoll = std::chrono::milliseconds(1);  // only while a test has frozen the hub

struct OutStream {
  OutStream(asio::any_io_executor executor, Clock& clock, KvOutboundParams params)
      : ledger(std::move(executor), clock, std::move(params)) {}
  void close() {
    closed = true;
    ledger.release();
  }
  KvOutboundLedger ledger;
  bool attached = false;  // a receiver is there
  bool closed = false;    // the pump touches no page from now on
};

struct InStream {
  InStream(asio::any_io_executor executor, Clock& clock, KvInboundParams params)
      : ledger(std::move(executor), clock, std::move(params)) {}
  void close() {
    closed = true;
    ledger.release();
    if (sender) sender->ledger.wake();
  }
  void open_layers(int32_t count) {
    ledger.open_layers(count);
    if (sender)
      RUNAHEAD_CHECK(sender->ledger.open_layers(ledger.layers_open()).has_value(), "both ends have one geometry");
  }
  KvInboundLedger ledger;
  std::shared_ptr<OutStream> sender;  // shared with the sender's handle; set once attached
  bool closed = false;                // the pump touches no buffer from now on
};

}  // namespace

struct MemoryKvTransport::State {
  State(asio::any_io_executor e, Clock& c, KvTransportOptions o)
      : executor(e), clock(c), options(std::move(o)), opened(e, c) {}

  asio::any_io_executor executor;
  Clock& clock;
  KvTransportOptions options;
  std::string address;
  std::map<AttemptId, std::shared_ptr<OutStream>> outbounds;  // shared with the handles and the pumps
  Wake opened;                                              // a new outbound
  bool stopped = false;
};

struct MemoryKvHub::Registry {
  std::map<std::string, std::weak_ptr<MemoryKvTransport::State>> transports;  // weak: a transport may just vanish
  uint64_t last_id = 0;
};

std::shared_ptr<MemoryKvHub::Registry> MemoryKvHub::make_registry() { return std::make_shared<Registry>(); }

namespace {

using State = MemoryKvTransport::State;

// The handles. Destroyed without close() they close: nothing here is ever in the middle of touching a page.
class Inbound final : public KvInbound {
 public:
  explicit Inbound(std::shared_ptr<InStream> stream) : stream_(std::move(stream)) {}
  ~Inbound() override { stream_->close(); }
  Task<KvArrival> next(Deadline deadline) override { return stream_->ledger.next(deadline); }
  void open_layers(int32_t count) override { stream_->open_layers(count); }
  asio::awaitable<void> close() override {
    stream_->close();
    co_return;
  }
  KvStreamStats stats() const override { return stream_->ledger.stats(); }

 private:
  std::shared_ptr<InStream> stream_;  // shared with the pump
};

class Outbound final : public KvOutbound {
 public:
  Outbound(std::shared_ptr<OutStream> stream, std::weak_ptr<State> transport)
      : stream_(std::move(stream)), transport_(std::move(transport)) {}
  ~Outbound() override { end(); }
  void post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c) override {
    stream_->ledger.post(key, page, crc32c);
  }
  Task<void> wait_for_sent_layers(int32_t count, Deadline deadline) override {
    return stream_->ledger.wait_for_sent_layers(count, deadline);
  }
  Task<void> drain(Deadline deadline) override { return stream_->ledger.drain(deadline); }
  asio::awaitable<void> close() override {
    end();
    co_return;
  }
  KvStreamStats stats() const override { return stream_->ledger.stats(); }

 private:
  void end() {
    if (stream_->closed) return;
    if (const auto transport = transport_.lock()) transport->outbounds.erase(stream_->ledger.params().attempt);
    stream_->close();
  }
  std::shared_ptr<OutStream> stream_;  // shared with the pump
  std::weak_ptr<State> transport_;
};

// The sending end that this stream asks for, once it is open. An Error that names the reason otherwise.
Task<std::shared_ptr<OutStream>> find_sender(std::shared_ptr<InStream> in, std::weak_ptr<State> weak_sender,
                                             Duration timeout, Clock* clock) {
  const KvInboundParams params = in->ledger.params();
  const Deadline deadline = clock->after(timeout);
  for (;;) {
    const auto sender = weak_sender.lock();
    if (!sender || sender->stopped)
      co_return fail(ErrorCode::kWorkerLost, "no worker is left at " + params.sender_address);
    const auto found = sender->outbounds.find(params.attempt);
    if (found != sender->outbounds.end()) {
      const auto out = found->second;
      if (out->ledger.params().stream_token != params.stream_token)
        co_return std::unexpected(error_of(StreamReply::kWrongToken));
      if (out->attached) co_return std::unexpected(error_of(StreamReply::kAlreadyOpen));
      co_return out;
    }
    if (clock->now() >= deadline.at) co_return std::unexpected(error_of(StreamReply::kUnknownStream));
    co_await sender->opened.wait_until(deadline);
    if (in->closed) co_return fail(ErrorCode::kCancelled, "the KV stream is closed");
  }
}

// Copies the next page into its buffer and checks it there, as if it had crossed a wire.
Result<void> move_page(InStream& in, OutStream& out, const MemoryKvHub& hub) {
  const auto page = out.ledger.take();
  auto wire = encode(page.header);
  std::vector<std::byte> damaged;
  std::span<const std::byte> bytes = page.bytes;
  if (hub.damage) {
    damaged.assign(bytes.begin(), bytes.end());
    hub.damage(wire, damaged);
    bytes = damaged;
  }
  const KvPageHeader header = TRY(parse_page_header(wire));
  const std::span<std::byte> buffer = TRY(in.ledger.claim(header));
  std::memcpy(buffer.data(), bytes.data(), buffer.size());
  TRY(in.ledger.commit(header));
  out.ledger.sent(page);
  return {};
}

// Waits out a frozen hub; an Error when that takes too long.
Task<void> thaw(std::shared_ptr<InStream> in, std::shared_ptr<MemoryKvHub> hub, Duration timeout, Clock* clock) {
  const Deadline deadline = clock->after(timeout);
  while (hub->frozen && !in->closed && !in->sender->closed) {
    if (clock->now() >= deadline.at)
      co_return fail(ErrorCode::kDeadlineExceeded, "a KV page made no progress: the peer seems to be frozen");
    co_await in->sender->ledger.wait_for_change(clock->after(kFrozenPoll));
  }
  co_return Result<void>{};
}

Task<void> pump(std::shared_ptr<InStream> in, std::shared_ptr<State> receiver, std::weak_ptr<State> sender) {
  const auto hub = receiver->options.hub;
  auto found = co_await find_sender(in, sender, receiver->options.connect_timeout, &receiver->clock);
  const auto out = CO_TRY(found);
  out->attached = true;
  in->sender = out;
  if (in->ledger.geometry() != out->ledger.geometry()) {
    const Error error = error_of(StreamReply::kOtherGeometry);
    out->ledger.fail(error);
    co_return std::unexpected(error);
  }
  in->open_layers(in->ledger.layers_open());
  while (!in->ledger.complete() && !in->closed) {
    if (out->closed) co_return fail(ErrorCode::kWorkerLost, "the sender closed the KV stream before its last page");
    if (out->ledger.error()) co_return std::unexpected(*out->ledger.error());
    if (!out->ledger.has_page()) {
      co_await out->ledger.wait_for_change();
      continue;
    }
    Result<void> moving;
    if (hub->frozen) moving = co_await thaw(in, hub, receiver->options.transfer_timeout, &receiver->clock);
    if (in->closed || out->closed) continue;
    if (moving) moving = move_page(*in, *out, *hub);
    if (!moving) out->ledger.fail(moving.error());
    CO_TRY(moving);
    co_await asio::post(receiver->executor,
                        asio::use_awaitable);  // completions come through the executor, streams take turns
  }
  if (in->ledger.complete()) {
    out->ledger.confirm();
  } else {
    out->ledger.fail({ErrorCode::kWorkerLost, "the receiver closed the KV stream before its last page", {}});
  }
  co_return Result<void>{};
}

asio::awaitable<void> run_inbound(std::shared_ptr<InStream> in, std::shared_ptr<State> receiver,
                                  std::weak_ptr<State> sender) {
  auto pumped = co_await pump(in, receiver, sender);
  if (!pumped) in->ledger.fail(pumped.error());
}

asio::awaitable<void> expect_receiver(std::shared_ptr<OutStream> out, Deadline deadline, Clock* clock) {
  while (!out->attached && !out->closed && clock->now() < deadline.at) co_await out->ledger.wait_for_change(deadline);
  if (!out->attached && !out->closed)
    out->ledger.fail({ErrorCode::kDeadlineExceeded, "no receiver opened its end of the KV stream in time", {}});
}

}  // namespace

Result<std::unique_ptr<KvTransport>> MemoryKvTransport::create(KvTransportOptions options,
                                                               asio::any_io_executor executor, Clock& clock) {
  if (!options.hub) return fail(ErrorCode::kInvalidArgument, "the memory transport needs a hub that its peers share");
  const auto registry = options.hub->registry_;
  auto state = std::make_shared<State>(std::move(executor), clock, std::move(options));
  state->address = "memory://" + std::to_string(++registry->last_id) + "#" + std::to_string(state->options.incarnation);
  registry->transports[state->address] = state;
  return std::unique_ptr<KvTransport>(new MemoryKvTransport(std::move(state)));
}

MemoryKvTransport::~MemoryKvTransport() {
  state_->stopped = true;
  state_->opened.notify();
  state_->options.hub->registry_->transports.erase(state_->address);
}

std::string MemoryKvTransport::address() const { return state_->address; }

Result<void> MemoryKvTransport::register_memory(std::span<std::byte>) { return {}; }

Result<std::unique_ptr<KvInbound>> MemoryKvTransport::open_inbound(KvInboundParams params) {
  TRY(check_geometry(geometry_of(params)));
  const auto& transports = state_->options.hub->registry_->transports;
  const auto sender = transports.find(params.sender_address);
  auto stream = std::make_shared<InStream>(state_->executor, state_->clock, std::move(params));
  asio::co_spawn(state_->executor,
                 run_inbound(stream, state_, sender == transports.end() ? std::weak_ptr<State>() : sender->second),
                 asio::detached);
  return std::make_unique<Inbound>(std::move(stream));
}

Result<std::unique_ptr<KvOutbound>> MemoryKvTransport::open_outbound(KvOutboundParams params) {
  TRY(check_geometry(geometry_of(params)));
  if (state_->outbounds.size() >= limits::kKvStreamsMax)
    return fail(ErrorCode::kOverloaded, "too many KV streams are open");
  const AttemptId attempt = params.attempt;
  if (state_->outbounds.contains(attempt))
    return fail(ErrorCode::kInvalidArgument, "this attempt has a KV stream from here already");
  auto stream = std::make_shared<OutStream>(state_->executor, state_->clock, std::move(params));
  state_->outbounds.emplace(attempt, stream);
  state_->opened.notify();
  asio::co_spawn(state_->executor,
                 expect_receiver(stream, state_->clock.after(state_->options.connect_timeout), &state_->clock),
                 asio::detached);
  return std::make_unique<Outbound>(std::move(stream), state_);
}

asio::awaitable<void> MemoryKvTransport::shutdown() {
  state_->stopped = true;
  state_->opened.notify();
  co_return;
}

}  // namespace runahead
