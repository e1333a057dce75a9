#include "transport/kv/tcp_kv_transport.h"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <map>

#include "base/log_limit.h"
#include "transport/control/frame.h"
#include "transport/kv/kv_handles.h"
#include "transport/kv/tcp_kv_streams.h"

namespace runahead {

struct TcpKvTransport::State {
  // A connection that has not found its stream yet. Shared with its timer. By age: the oldest goes when another one
  // comes and kKvGreetingsMax are there, so strangers keep no receiver out.
  struct Greeting {
    Greeting(Tcp::socket s, Clock& clock)
        : socket(std::move(s)), timeout(socket.get_executor(), clock, [this] { close_socket(socket.tcp()); }) {}
    PeerSocket socket;
    StallTimer timeout;
  };

  State(asio::any_io_executor e, Clock& c, KvTransportOptions o, TcpListener l)
      : executor(e), clock(c), options(std::move(o)), listener(std::move(l)), changed(e, c) {}

  static asio::awaitable<void> accept_receivers(std::shared_ptr<State> self, Tcp::acceptor* acceptor);
  static asio::awaitable<void> greet(std::shared_ptr<State> self, std::shared_ptr<Greeting> greeting);
  asio::awaitable<StreamReply> find_stream(StreamHello hello, std::shared_ptr<Greeting> greeting);
  using Greetings = std::map<uint64_t, std::shared_ptr<Greeting>>;
  uint64_t enter(Greetings& greetings, std::shared_ptr<Greeting> greeting);
  void spawn(std::shared_ptr<State> self, asio::awaitable<void> work);
  void forget(AttemptId attempt, const TcpOutStream& stream);
  void stop();

  asio::any_io_executor executor;
  Clock& clock;
  KvTransportOptions options;
  TcpListener listener;
  KvAddress address;
  std::map<AttemptId, std::shared_ptr<TcpOutStream>> outbounds;  // shared with the handles
  size_t num_inbounds = 0;
  Greetings silent;  // those that have not said which stream they want
  Greetings named;   // those that have, and wait for it
  uint64_t last_greeting = 0;
  int coroutines = 0;
  bool stopping = false;
  Wake changed;  // a new outbound, stopping, or a coroutine has ended
};

namespace {

using State = TcpKvTransport::State;

}  // namespace

void State::spawn(std::shared_ptr<State> self, asio::awaitable<void> work) {
  ++coroutines;
  asio::co_spawn(executor, std::move(work), [self](std::exception_ptr) {
    --self->coroutines;
    self->changed.notify();
  });
}

// The attempt may belong to a later stream by now.
void State::forget(AttemptId attempt, const TcpOutStream& stream) {
  const auto found = outbounds.find(attempt);
  if (found != outbounds.end() && found->second.get() == &stream) outbounds.erase(found);
}

void State::stop() {
  stopping = true;
  listener.close();
  for (const Greetings* greetings : {&silent, &named})
    for (const auto& [number, greeting] : *greetings) close_socket(greeting->socket.tcp());
  changed.notify();
}

asio::awaitable<void> State::accept_receivers(std::shared_ptr<State> self, Tcp::acceptor* acceptor) {
  while (!self->stopping) {
    auto [error, socket] = co_await acceptor->async_accept(kAsTuple);
    if (self->stopping) co_return;
    if (error) {
      warn_limited("kv tcp accept", "kv tcp: cannot accept a connection: {}", error.message());
      co_await self->changed.wait_until(self->clock.after(kAcceptPause));
      continue;
    }
    set_socket_options(socket);
    self->spawn(self, greet(self, std::make_shared<Greeting>(std::move(socket), self->clock)));
  }
}

uint64_t State::enter(Greetings& greetings, std::shared_ptr<Greeting> greeting) {
  if (greetings.size() >= limits::kKvGreetingsMax) {
    warn_limited("kv tcp full", "kv tcp: {} connections have not found their stream; dropping the oldest",
                 greetings.size());
    close_socket(greetings.begin()->second->socket.tcp());  // which ends its coroutine
    greetings.erase(greetings.begin());
    changed.notify();
  }
  greetings.emplace(++last_greeting, std::move(greeting));
  return last_greeting;
}

asio::awaitable<void> State::greet(std::shared_ptr<State> self, std::shared_ptr<Greeting> greeting) {
  uint64_t number = self->enter(self->silent, greeting);
  std::array<std::byte, kPreambleBytes> preamble;
  std::array<std::byte, kStreamHelloBytes> wire;
  const std::array<asio::mutable_buffer, 2> buffers = {asio::buffer(preamble), asio::buffer(wire)};
  greeting->timeout.start(self->options.connect_timeout, greeting);
  auto secured =
      co_await greeting->socket.secure(self->options.identity, PeerSocket::End::kAccepted, PeerSocket::Peer::kWorker);
  if (!secured) {
    self->silent.erase(number);
    greeting->timeout.cancel();
    warn_limited("kv tcp refused", "kv tcp: refused a connection: {}", secured.error().message);
    co_return;
  }
  auto [error, size] = co_await asio::async_read(greeting->socket, buffers, kAsTuple);
  greeting->timeout.cancel();
  self->silent.erase(number);
  auto checked = error ? Result<void>(std::unexpected(connection_lost("a receiver", error)))
                       : check_preamble(preamble, Plane::kData);
  auto hello = checked ? parse_stream_hello(wire) : Result<StreamHello>(std::unexpected(checked.error()));
  if (hello) {
    number = self->enter(self->named, greeting);
    const StreamReply reply = co_await self->find_stream(*hello, greeting);
    self->named.erase(number);
    if (reply != StreamReply::kOk) {
      warn_limited("kv tcp stream", "kv tcp: refused a stream: {}", error_of(reply).message);
      const auto ours = encode_preamble(Plane::kData);
      const auto answer = encode(reply);
      const std::array<asio::const_buffer, 2> refusal = {asio::buffer(ours), asio::buffer(answer)};
      co_await asio::async_write(greeting->socket, refusal, kAsTuple);
    }
  } else if (size > 0 || error != asio::error::eof) {  // who says nothing and goes has only looked whether we are here
    warn_limited("kv tcp refused", "kv tcp: refused a connection: {}", hello.error().message);
  }
}

asio::awaitable<StreamReply> State::find_stream(StreamHello hello, std::shared_ptr<Greeting> greeting) {
  if (hello.incarnation != options.incarnation) co_return StreamReply::kOtherIncarnation;
  const Deadline deadline = clock.after(options.connect_timeout);
  while (!stopping && greeting->socket.tcp().is_open()) {
    const auto found = outbounds.find(hello.attempt);
    if (found != outbounds.end()) co_return found->second->attach(hello, greeting->socket);
    if (clock.now() >= deadline.at) break;
    co_await changed.wait_until(deadline);
  }
  co_return StreamReply::kUnknownStream;
}

Result<std::unique_ptr<KvTransport>> TcpKvTransport::create(KvTransportOptions options, asio::any_io_executor executor,
                                                            Clock& clock) {
  auto listener = TRY(listen_tcp(executor, options.listen, options.may_be_remote()));
  auto state = std::make_shared<State>(executor, clock, std::move(options), std::move(listener));
  for (Tcp::acceptor& acceptor : state->listener.acceptors)
    state->spawn(state, State::accept_receivers(state, &acceptor));
  const auto& own = state->options;
  state->address = {own.advertised(state->listener.port()), own.incarnation};
  return std::unique_ptr<KvTransport>(new TcpKvTransport(std::move(state)));
}

TcpKvTransport::~TcpKvTransport() { state_->stop(); }

std::string TcpKvTransport::describe() const { return "tcp at " + to_string(state_->address.place); }

std::string TcpKvTransport::address() const { return to_string(state_->address); }

void TcpKvTransport::advertise(const std::string& host) { state_->address.place.host = host; }

Result<void> TcpKvTransport::register_memory(std::span<std::byte>) { return {}; }

Result<std::unique_ptr<KvInbound>> TcpKvTransport::open_inbound(KvInboundParams params) {
  TRY(check_geometry(geometry_of(params)));
  KvAddress sender = TRY(parse_kv_address(params.sender_address));
  if (state_->stopping) return fail(ErrorCode::kUnavailable, "the tcp transport has been shut down");
  if (state_->num_inbounds >= limits::kKvStreamsMax)
    return fail(ErrorCode::kOverloaded, "too many KV streams are open");
  auto stream = TcpInStream::start(state_->executor, state_->clock,
                                   {state_->options.connect_timeout, state_->options.transfer_timeout},
                                   state_->options.identity, std::move(sender), std::move(params));
  ++state_->num_inbounds;
  return std::make_unique<InboundHandle<TcpInStream>>(std::move(stream), [state = state_] { --state->num_inbounds; });
}

Result<std::unique_ptr<KvOutbound>> TcpKvTransport::open_outbound(KvOutboundParams params) {
  TRY(check_geometry(geometry_of(params)));
  if (state_->stopping) return fail(ErrorCode::kUnavailable, "the tcp transport has been shut down");
  if (state_->outbounds.size() >= limits::kKvStreamsMax)
    return fail(ErrorCode::kOverloaded, "too many KV streams are open");
  const AttemptId attempt = params.attempt;
  if (state_->outbounds.contains(attempt))
    return fail(ErrorCode::kInvalidArgument, "this attempt has a KV stream from here already");
  auto stream =
      TcpOutStream::start(state_->executor, state_->clock,
                          {state_->options.connect_timeout, state_->options.transfer_timeout}, std::move(params));
  state_->outbounds.emplace(attempt, stream);
  state_->changed.notify();
  auto forget = [state = state_, stream, attempt] { state->forget(attempt, *stream); };
  return std::make_unique<OutboundHandle<TcpOutStream>>(std::move(stream), std::move(forget));
}

asio::awaitable<void> TcpKvTransport::shutdown() {
  const auto state = state_;
  state->stop();
  while (state->coroutines > 0) co_await state->changed.wait();
}

}  // namespace runahead
