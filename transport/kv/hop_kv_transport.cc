#include "transport/kv/hop_kv_transport.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <map>
#include <vector>

#include "base/log_limit.h"
#include "transport/kv/kv_address.h"
#include "transport/kv/kv_handles.h"
#include "transport/kv/kv_hop.h"

namespace runahead {

struct HopKvTransport::State {
  State(HopWay w, KvTransportOptions o, asio::any_io_executor e, Clock& c, TcpListener l)
      : way(std::move(w)),
        executor(e),
        clock(c),
        options(std::move(o)),
        listener(std::move(l)),
        // Hops watch their pages (KvHop::begin_transfer).
        streams(std::make_shared<MessageStreamContext>(e, c, options.connect_timeout,
                                                       options.connect_timeout + options.transfer_timeout)) {
    streams->authenticate_pages = options.authenticate_pages;
  }
  ~State();
  static asio::awaitable<void> accept_receivers(std::shared_ptr<State> self, Tcp::acceptor* acceptor);
  static asio::awaitable<void> find_stream(std::shared_ptr<State> self, std::shared_ptr<KvHopEndpoint> endpoint,
                                           StreamHello hello);
  std::shared_ptr<KvHopContext> hop_context(std::weak_ptr<State> self);
  std::shared_ptr<KvHop> hop_to(const KvAddress& sender);
  void enter(std::shared_ptr<KvHop> hop);
  void forget_ended();
  void spawn(std::shared_ptr<State> self, asio::awaitable<void> work);
  void forget(AttemptId attempt, const MessageOutStream& stream);
  void stop();

  HopWay way;
  asio::any_io_executor executor;
  Clock& clock;
  KvTransportOptions options;
  TcpListener listener;
  KvAddress address;
  std::shared_ptr<MessageStreamContext> streams;  // shared with the streams
  std::shared_ptr<KvHopContext> context;
  std::map<std::string, std::shared_ptr<KvHop>> senders;  // by address; the newest to each
  std::vector<std::shared_ptr<KvHop>> hops;  // all that have not ended, by age
  std::map<AttemptId, std::shared_ptr<MessageOutStream>> outbounds;  // shared with the handles
  size_t num_inbounds = 0;
  size_t num_unmatched = 0;
  int coroutines = 0;
  bool stopping = false;
};

namespace {

using State = HopKvTransport::State;

}  // namespace

// After shutdown() nothing is left.
State::~State() {
  for (const auto& hop : hops) hop->orphan();
}

void State::spawn(std::shared_ptr<State> self, asio::awaitable<void> work) {
  ++coroutines;
  asio::co_spawn(executor, std::move(work), [self](std::exception_ptr) {
    --self->coroutines;
    self->streams->changed.notify();
  });
}

std::shared_ptr<KvHopContext> State::hop_context(std::weak_ptr<State> self) {
  auto made = std::make_shared<KvHopContext>(
      KvHopContext{streams, way.make_lane, options.identity, options.transfer_timeout, {}});
  made->on_hello = [self](const std::shared_ptr<KvHopEndpoint>& endpoint, const StreamHello& hello) {
    const auto state = self.lock();
    if (!state || state->stopping) return;
    if (hello.incarnation != state->options.incarnation) return endpoint->send_reply(StreamReply::kOtherIncarnation);
    if (state->num_unmatched >= limits::kKvGreetingsMax) return endpoint->send_reply(StreamReply::kBusy);
    state->spawn(state, find_stream(state, endpoint, hello));
  };
  return made;
}

// The sender may open its end later than the receiver does.
asio::awaitable<void> State::find_stream(std::shared_ptr<State> self, std::shared_ptr<KvHopEndpoint> endpoint,
                                         StreamHello hello) {
  ++self->num_unmatched;
  const Deadline deadline = self->clock.after(self->options.connect_timeout);
  StreamReply reply = StreamReply::kUnknownStream;
  while (!self->stopping && !endpoint->is_closing()) {
    const auto found = self->outbounds.find(hello.attempt);
    if (found != self->outbounds.end()) {
      endpoint->out = found->second;
      reply = found->second->attach(hello, endpoint);
      break;
    }
    if (self->clock.now() >= deadline.at) break;
    co_await self->streams->changed.wait_until(deadline);
  }
  --self->num_unmatched;
  if (reply == StreamReply::kOk) co_return;
  endpoint->out.reset();
  warn_limited("kv hop stream", "kv {}: refused a stream: {}", self->way.label, error_of(reply).message);
  endpoint->send_reply(reply);
}

asio::awaitable<void> State::accept_receivers(std::shared_ptr<State> self, Tcp::acceptor* acceptor) {
  while (!self->stopping) {
    auto [error, socket] = co_await acceptor->async_accept(kAsTuple);
    if (self->stopping) co_return;
    if (error) {
      warn_limited("kv hop accept", "kv {}: cannot accept a connection: {}", self->way.label, error.message());
      co_await self->streams->changed.wait_until(self->clock.after(kAcceptPause));
      continue;
    }
    set_socket_options(socket);
    self->enter(KvHop::accept(self->context, std::move(socket)));
  }
}

void State::forget_ended() {
  std::erase_if(hops,
                [](const auto& hop) { return hop->has_failed() && hop->has_ended() && hop->num_endpoints() == 0; });
  std::erase_if(senders, [](const auto& entry) { return entry.second->has_failed(); });
}

void State::enter(std::shared_ptr<KvHop> hop) {
  forget_ended();
  const auto is_stranger = [](const auto& known) { return known->is_stranger(); };
  if (std::ranges::count_if(hops, is_stranger) >= static_cast<std::ptrdiff_t>(limits::kKvGreetingsMax)) {
    warn_limited("kv hop full", "kv {}: too many connections have no stream; dropping the oldest", way.label);
    const auto oldest = std::ranges::find_if(hops, is_stranger);
    (*oldest)->fail({ErrorCode::kOverloaded, "too many connections have no KV stream", {}});
  }
  hops.push_back(std::move(hop));
}

std::shared_ptr<KvHop> State::hop_to(const KvAddress& sender) {
  forget_ended();
  auto& hop = senders[to_string(sender)];
  if (!hop) {
    hop = KvHop::connect(context, sender.place);
    hops.push_back(hop);
  }
  return hop;
}

// The attempt may belong to a later stream by now.
void State::forget(AttemptId attempt, const MessageOutStream& stream) {
  const auto found = outbounds.find(attempt);
  if (found != outbounds.end() && found->second.get() == &stream) outbounds.erase(found);
}

void State::stop() {
  if (stopping) return;
  stopping = true;
  listener.close();
  for (const auto& hop : hops) hop->fail({ErrorCode::kCancelled, "the worker shuts down", {}});
  streams->changed.notify();
}

Result<std::unique_ptr<KvTransport>> HopKvTransport::create(HopWay way, KvTransportOptions options,
                                                            asio::any_io_executor executor, Clock& clock) {
  auto listener = TRY(listen_tcp(executor, options.listen, options.may_be_remote()));
  auto state = std::make_shared<State>(std::move(way), std::move(options), executor, clock, std::move(listener));
  const auto& own = state->options;
  state->address = {own.advertised(state->listener.port()), own.incarnation, state->way.name};
  state->context = state->hop_context(state);
  for (Tcp::acceptor& acceptor : state->listener.acceptors)
    state->spawn(state, State::accept_receivers(state, &acceptor));
  return std::unique_ptr<KvTransport>(new HopKvTransport(std::move(state)));
}

HopKvTransport::~HopKvTransport() { state_->stop(); }

std::string HopKvTransport::describe() const { return state_->way.describe(to_string(state_->address.place)); }

std::string HopKvTransport::address() const {
  boost::system::error_code no_literal;
  const bool v6 = asio::ip::make_address(state_->address.place.host, no_literal).is_v6() && !no_literal;
  return v6 && !state_->way.has_ipv6 ? std::string() : to_string(state_->address);
}

void HopKvTransport::advertise(const std::string& host) { state_->address.place.host = host; }

Result<void> HopKvTransport::register_memory(std::span<std::byte> pool) { return state_->way.register_memory(pool); }

std::string HopKvTransport::name() const { return state_->way.label; }

Result<std::unique_ptr<KvInbound>> HopKvTransport::open_inbound(KvInboundParams params) {
  TRY(check_geometry(geometry_of(params)));
  const KvAddress sender = TRY(parse_kv_address(params.sender_address, state_->address.transport));
  if (state_->stopping)
    return fail(ErrorCode::kUnavailable, "the " + state_->address.transport + " transport has been shut down");
  if (state_->num_inbounds >= limits::kKvStreamsMax)
    return fail(ErrorCode::kOverloaded, "too many KV streams are open");
  auto stream = std::make_shared<MessageInStream>(state_->streams, std::move(params));
  stream->start();
  state_->hop_to(sender)->open(stream, sender.incarnation);
  ++state_->num_inbounds;
  return std::make_unique<InboundHandle<MessageInStream>>(std::move(stream),
                                                          [state = state_] { --state->num_inbounds; });
}

Result<std::unique_ptr<KvOutbound>> HopKvTransport::open_outbound(KvOutboundParams params) {
  TRY(check_geometry(geometry_of(params)));
  if (state_->stopping)
    return fail(ErrorCode::kUnavailable, "the " + state_->address.transport + " transport has been shut down");
  if (state_->outbounds.size() >= limits::kKvStreamsMax)
    return fail(ErrorCode::kOverloaded, "too many KV streams are open");
  const AttemptId attempt = params.attempt;
  if (state_->outbounds.contains(attempt))
    return fail(ErrorCode::kInvalidArgument, "this attempt has a KV stream from here already");
  auto stream = std::make_shared<MessageOutStream>(state_->streams, std::move(params));
  stream->start();
  state_->outbounds.emplace(attempt, stream);
  state_->streams->changed.notify();
  auto forget = [state = state_, stream, attempt] { state->forget(attempt, *stream); };
  return std::make_unique<OutboundHandle<MessageOutStream>>(std::move(stream), std::move(forget));
}

asio::awaitable<void> HopKvTransport::shutdown() {
  const auto state = state_;
  state->stop();
  for (;;) {
    state->forget_ended();
    if (state->hops.empty() && state->coroutines == 0) break;
    co_await state->streams->changed.wait();
  }
}

}  // namespace runahead
