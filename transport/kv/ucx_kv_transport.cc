#include "transport/kv/ucx_kv_transport.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <cstring>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/log_limit.h"
#include "transport/kv/kv_handles.h"
#include "transport/kv/ucx_context.h"
#include "transport/kv/ucx_operation.h"
#include "transport/kv/ucx_state.h"

namespace runahead {
namespace {

constexpr auto kNudge = std::chrono::milliseconds(5);
// UCX 1.13.1 takes a connection over IPv6, also one to "::" from IPv4, and then calls its endpoint "not connected".
constexpr const char* kNeedsIpv4 = "UCX carries no pages over IPv6: use --transport tcp or auto";
std::vector<Tcp::endpoint> ipv4_of(std::vector<Tcp::endpoint> endpoints) {
  std::erase_if(endpoints, [](const Tcp::endpoint& endpoint) { return endpoint.address().is_v6(); });
  return endpoints;
}

constexpr int kProgressBudget = 32;  // rounds of UCX before other handlers of this thread have a turn

using State = UcxKvTransport::State;

std::shared_ptr<UcxConnection> find(State& state, const ucp_am_recv_param_t* param) {
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) == 0) return nullptr;
  const auto found = state.endpoints.find(param->reply_ep);
  return found == state.endpoints.end() || found->second->is_closing() ? nullptr : found->second;
}

std::span<const std::byte> bytes_of(const void* header, size_t length) {
  return {static_cast<const std::byte*>(header), length};
}

ucs_status_t on_hello_message(void* arg, const void* header, size_t length, void*, size_t,
                              const ucp_am_recv_param_t* param) {
  auto& state = *static_cast<State*>(arg);
  if (const auto endpoint = find(state, param)) state.on_hello(endpoint, bytes_of(header, length));
  return UCS_OK;
}

ucs_status_t on_reply_message(void* arg, const void* header, size_t length, void*, size_t,
                              const ucp_am_recv_param_t* param) {
  auto& state = *static_cast<State*>(arg);
  const auto endpoint = find(state, param);
  if (!endpoint) return UCS_OK;
  if (const auto stream = endpoint->in.lock()) {
    state.lanes = lanes_of(endpoint->handle);
    stream->on_reply(bytes_of(header, length));
  } else if (const auto sender = endpoint->out.lock()) {
    sender->on_reply(bytes_of(header, length));
  }
  return UCS_OK;
}

ucs_status_t on_page_message(void* arg, const void* header, size_t header_length, void* data, size_t length,
                             const ucp_am_recv_param_t* param) {
  auto& state = *static_cast<State*>(arg);
  const auto endpoint = find(state, param);
  const auto stream = endpoint ? endpoint->in.lock() : nullptr;
  if (!stream) return UCS_OK;  // drops the page; its bytes were never fetched
  const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  bool fetched = false;
  stream->on_page(bytes_of(header, header_length), length,
                  [&](std::span<std::byte> buffer, MessageEndpoint::Done done) {
                    if (!rendezvous) {
                      std::memcpy(buffer.data(), data, buffer.size());
                      return done(nullptr, std::nullopt);
                    }
                    fetched = true;
                    auto* kept = keep(state.pending, std::move(done));
                    auto receive = request_param(kept, 0);
                    receive.cb.recv_am = on_received;
                    if (state.memory != nullptr) {
                      receive.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
                      receive.memh = state.memory;
                    }
                    void* request = ucp_am_recv_data_nbx(state.worker, data, buffer.data(), buffer.size(), &receive);
                    if (!UCS_PTR_IS_PTR(request)) finish(kept, UCS_PTR_STATUS(request));
                  });
  return fetched ? UCS_INPROGRESS : UCS_OK;
}

void on_connection(ucp_conn_request_h request, void* arg) {
  auto& state = *static_cast<State*>(arg);
  if (state.stopping || state.endpoints.size() >= 2 * limits::kKvGreetingsMax + 2 * limits::kKvStreamsMax) {
    ucp_listener_reject(state.listeners.front(), request);
    return;
  }
  state.drop_oldest_greeting(/*named=*/false);
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST;
  params.conn_request = request;
  auto endpoint = state.open_endpoint(params);
  if (endpoint) {
    (*endpoint)->start_wireup_timer();
  } else {
    warn_limited("kv ucx accept", "kv ucx: cannot accept a connection: {}", endpoint.error().message);
  }
}

}  // namespace

// After shutdown() there is nothing left. If the loop has died before it, endpoints are closed here: ucp_worker_destroy
// ends the process when requests still wait in one. Loop and clock may be gone before it: nothing here asks them.
State::~State() {
  stopping = true;
  sleeping = false;
  const auto left = endpoints;  // a copy: they leave the map
  progress_while(
      [&] { return std::ranges::any_of(left, [](const auto& entry) { return !entry.second->is_wired(); }); });
  for (auto& [handle, endpoint] : left) endpoint->really_close();
  progress_while([&] { return pending > 0; });
  for (auto& [handle, endpoint] : left) endpoint->orphan();
  close_ucx();
}

template <class Condition>
void State::progress_while(const Condition& condition) {
  constexpr auto kPause = std::chrono::microseconds(100);
  for (int64_t pauses = kWireupTimeout / kPause; condition() && pauses > 0;) {
    if (ucp_worker_progress(worker) != 0) continue;
    std::this_thread::sleep_for(kPause);
    --pauses;
  }
}

void State::close_ucx() {
  if (events.is_open()) events.release();
  for (ucp_listener_h listener : std::exchange(listeners, {})) ucp_listener_destroy(listener);
  if (memory != nullptr) ucp_mem_unmap(context, std::exchange(memory, nullptr));
  if (worker != nullptr) ucp_worker_destroy(std::exchange(worker, nullptr));
  if (context != nullptr) ucp_cleanup(std::exchange(context, nullptr));
}

Result<void> State::start() {
  context = TRY(open_ucx_context(options.allow_remote));
  ucp_worker_params_t worker_params{};
  worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker_params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucs_status_t status = ucp_worker_create(context, &worker_params, &worker);
  int fd = -1;
  if (status == UCS_OK) status = ucp_worker_get_efd(worker, &fd);
  if (status != UCS_OK)
    return std::unexpected(
        ucx_error(ErrorCode::kUnavailable, "UCX cannot run on an event loop with this UCX_TLS", status));
  events.assign(fd);
  set_handler(kHelloId, on_hello_message);
  set_handler(kReplyId, on_reply_message);
  set_handler(kPageId, on_page_message);
  return start_listeners();
}

void State::set_handler(unsigned id, ucp_am_recv_callback_t callback) {
  ucp_am_handler_param_t param{};
  param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  param.id = id;
  param.cb = callback;
  param.arg = this;
  RUNAHEAD_CHECK(ucp_worker_set_am_recv_handler(worker, &param) == UCS_OK, "UCX refused a message handler");
}

Result<void> State::start_listeners() {
  HostPort place = options.listen;
  if (is_wildcard(place.host)) place.host = "0.0.0.0";
  const auto endpoints = ipv4_of(TRY(listen_endpoints(streams->executor, place, options.allow_remote)));
  if (endpoints.empty()) return fail(ErrorCode::kUnavailable, kNeedsIpv4, "transport");
  for (const Tcp::endpoint& endpoint : endpoints) {
    auto started = start_listener(endpoint, endpoint.port() == 0 ? address.place.port : endpoint.port());
    const bool not_ours = !started && started.error().code == ErrorCode::kUnavailable;
    if (!started && (!not_ours || listeners.empty())) return started;
  }
  return {};
}

Result<void> State::start_listener(Tcp::endpoint endpoint, uint16_t port) {
  endpoint.port(port);
  ucp_listener_params_t params{};
  params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
  params.sockaddr = {endpoint.data(), static_cast<socklen_t>(endpoint.size())};
  params.conn_handler = {on_connection, this};
  ucp_listener_h listener = nullptr;
  const ucs_status_t status = ucp_listener_create(worker, &params, &listener);
  if (status == UCS_ERR_BUSY) return std::unexpected(address_in_use({endpoint.address().to_string(), port}));
  if (status != UCS_OK)
    return std::unexpected(ucx_error(ErrorCode::kUnavailable, "UCX cannot listen on " + to_string(endpoint), status));
  listeners.push_back(listener);
  ucp_listener_attr_t attributes{};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  ucp_listener_query(listener, &attributes);
  Tcp::endpoint bound;
  std::memcpy(bound.data(), &attributes.sockaddr, bound.capacity());
  this->port = bound.port();
  address = {options.advertised(bound.port()), options.incarnation, ucx_transport_name()};
  return {};
}

void State::kick() {
  if (!sleeping) return;
  sleeping = false;
  events.cancel();
}

// Connections that UCX has taken up for the listener and not announced: they stand or fail before it goes, or its thread
// announces them to freed memory. Those that say nothing are ended.
bool State::has_visitors() {
  const std::vector<int> visitors = sockets_of_port(port).connections;
  const Duration waited = streams->clock.now() - stopped_at;
  if (waited > kWireupTimeout)
    for (const int fd : visitors) ::shutdown(fd, SHUT_RDWR);
  return !visitors.empty() && waited < 2 * kWireupTimeout;
}

// What UCX still has to give back at an end comes with progress, and not always with an event.
void State::wake_soon() {
  nudge.expires_after(kNudge);
  nudge.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (self && !error) self->kick();
  });
}

// Runs UCX until it has nothing to do, then sleeps until its event descriptor is readable or somebody kicks.
asio::awaitable<void> State::progress(std::shared_ptr<State> self) {
  while (!self->stopping || !self->endpoints.empty() || self->pending > 0 || self->has_visitors()) {
    int budget = kProgressBudget;
    while (budget > 0 && ucp_worker_progress(self->worker) != 0) --budget;
    // Once more for what UCX's thread noted meanwhile: an event that waits for a descriptor that is gone meets, in 1.13.1,
    // whichever connection gets its number next, and an assertion ends the process (tcp_sockcm_ep.c, async.c).
    const bool more = ucp_worker_progress(self->worker) != 0;
    if (budget == 0 || more || ucp_worker_arm(self->worker) == UCS_ERR_BUSY) {
      co_await asio::post(asio::use_awaitable);
      continue;
    }
    self->sleeping = true;
    if (self->stopping || self->closing > 0) self->wake_soon();
    co_await self->events.async_wait(asio::posix::stream_descriptor::wait_read, kAsTuple);
    self->sleeping = false;
  }
  self->close_ucx();
  self->ended = true;
  self->streams->changed.notify();
}

Result<std::shared_ptr<UcxConnection>> State::open_endpoint(ucp_ep_params_t params) {
  auto endpoint = std::make_shared<UcxConnection>(*this);
  params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = [](void* arg, ucp_ep_h, ucs_status_t status) {
    static_cast<UcxConnection*>(arg)->on_error(status);
  };
  params.err_handler.arg = endpoint.get();
  const ucs_status_t status = ucp_ep_create(worker, &params, &endpoint->handle);
  if (status != UCS_OK)
    return std::unexpected(
        ucx_error(ErrorCode::kWorkerLost, "UCX cannot connect (is there a common UCX_TLS lane?)", status));
  endpoint->number = ++last_endpoint;
  endpoints.emplace(endpoint->handle, endpoint);
  endpoint->watch_wireup();
  return endpoint;
}

// In order, until a connection stands; the last one is taken as it is, and its failure is the stream's.
Task<std::shared_ptr<UcxConnection>> State::connect_any(std::shared_ptr<State> self,
                                                        std::vector<Tcp::endpoint> endpoints, Deadline deadline) {
  Error why{ErrorCode::kWorkerLost, "shutting down", {}};
  for (size_t i = 0; i < endpoints.size() && !self->stopping; ++i) {
    ucp_ep_params_t params{};
    params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
    params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
    params.sockaddr = {endpoints[i].data(), static_cast<socklen_t>(endpoints[i].size())};
    auto endpoint = self->open_endpoint(params);
    if (!endpoint) {
      why = endpoint.error();
      continue;
    }
    if (i + 1 == endpoints.size()) co_return *endpoint;
    const Duration share = (deadline.at - self->streams->clock.now()) / static_cast<int64_t>(endpoints.size() - i);
    if (co_await self->stands(*endpoint, self->streams->clock.after(share))) co_return *endpoint;
    (*endpoint)->close();
  }
  co_return std::unexpected(why);
}

asio::awaitable<bool> State::stands(std::shared_ptr<UcxConnection> endpoint, Deadline deadline) {
  while (!endpoint->is_wired() && !endpoint->is_closing() && streams->clock.now() < deadline.at)
    co_await streams->changed.wait_until(deadline);
  co_return endpoint->is_wired() && !endpoint->is_closing();
}

asio::awaitable<void> State::connect(std::shared_ptr<State> self, std::shared_ptr<MessageInStream> stream,
                                     KvAddress sender) {
  const Deadline deadline = self->streams->clock.after(self->options.connect_timeout);
  auto resolved = co_await resolve_host(sender.place, self->streams->clock, deadline);
  if (!resolved) co_return stream->stop(resolved.error());
  if (stream->ledger().error() || self->stopping) co_return stream->stop({ErrorCode::kCancelled, "shutting down", {}});
  std::vector<Tcp::endpoint> endpoints = ipv4_of(std::move(*resolved));
  if (endpoints.empty()) co_return stream->stop({ErrorCode::kWorkerLost, kNeedsIpv4, {}});
  auto endpoint = co_await connect_any(self, std::move(endpoints), deadline);
  if (!endpoint) co_return stream->stop(endpoint.error());
  if (stream->ledger().error() || self->stopping) {
    (*endpoint)->close();
    co_return stream->stop({ErrorCode::kCancelled, "shutting down", {}});
  }
  (*endpoint)->in = stream;
  (*endpoint)->send(kHelloId, encode(stream->hello(sender.incarnation)));
  stream->attach(*endpoint);
}

void State::on_hello(const std::shared_ptr<UcxConnection>& endpoint, std::span<const std::byte> header) {
  const bool first = !endpoint->hello && endpoint->in.expired() && endpoint->out.expired();
  auto hello = header.size() == kStreamHelloBytes ? parse_stream_hello(header.first<kStreamHelloBytes>())
                                                  : fail(ErrorCode::kCorrupt, "a greeting of the wrong size");
  if (!first || !hello) {
    warn_limited("kv ucx refused", "kv ucx: refused a connection: {}",
                 hello ? "it greeted twice" : hello.error().message);
    return endpoint->close();
  }
  if (hello->incarnation != options.incarnation) return endpoint->send_reply(StreamReply::kOtherIncarnation);
  const auto found = outbounds.find(hello->attempt);
  if (found == outbounds.end()) {
    drop_oldest_greeting(/*named=*/true);
    endpoint->hello = *hello;
    return;
  }
  match(endpoint, *hello, *found->second);
}

void State::drop_oldest_greeting(bool named) {
  std::shared_ptr<UcxConnection> oldest;
  size_t count = 0;
  for (const auto& [handle, endpoint] : endpoints) {
    if (endpoint->is_closing() || !endpoint->in.expired() || !endpoint->out.expired()) continue;
    if (endpoint->hello.has_value() != named) continue;
    ++count;
    if (!oldest || endpoint->number < oldest->number) oldest = endpoint;
  }
  if (count < limits::kKvGreetingsMax) return;
  warn_limited("kv ucx full", "kv ucx: {} connections have not found their stream; dropping the oldest", count);
  oldest->close();
}

StreamReply State::match(const std::shared_ptr<UcxConnection>& endpoint, const StreamHello& hello,
                         MessageOutStream& stream) {
  endpoint->out = stream.weak_from_this();
  const StreamReply reply = stream.attach(hello, endpoint);
  if (reply == StreamReply::kOk) {
    endpoint->stop_wireup_timer();
    lanes = lanes_of(endpoint->handle);
  } else {
    endpoint->out.reset();
    warn_limited("kv ucx stream", "kv ucx: refused a stream: {}", error_of(reply).message);
    endpoint->send_reply(reply);
  }
  return reply;
}

// The attempt may belong to a later stream by now.
void State::forget(AttemptId attempt, const MessageOutStream& stream) {
  const auto found = outbounds.find(attempt);
  if (found != outbounds.end() && found->second.get() == &stream) outbounds.erase(found);
}

void State::stop() {
  if (stopping) return;
  stopping = true;  // the listener turns everybody away from now on; it goes when nobody is at the door (progress)
  stopped_at = streams->clock.now();
  for (const int fd : sockets_of_port(port).listeners) ignore_new_connections(fd);
  for (auto& [handle, endpoint] : endpoints) endpoint->close();
  kick();
}

Result<std::unique_ptr<KvTransport>> UcxKvTransport::create(KvTransportOptions options, asio::any_io_executor executor,
                                                            Clock& clock) {
  auto state = std::make_shared<State>(executor, clock, std::move(options));
  TRY(state->start());
  asio::co_spawn(executor, State::progress(state), asio::detached);
  return std::unique_ptr<KvTransport>(new UcxKvTransport(std::move(state)));
}

UcxKvTransport::~UcxKvTransport() { state_->stop(); }

std::string UcxKvTransport::describe() const {
  return "ucx at " + to_string(state_->address.place) + " over " +
         (state_->lanes.empty() ? "lanes not chosen yet" : state_->lanes);
}

std::string UcxKvTransport::address() const {
  boost::system::error_code no_literal;
  const bool v6 = asio::ip::make_address(state_->address.place.host, no_literal).is_v6();
  return v6 && !no_literal ? std::string() : to_string(state_->address);
}

void UcxKvTransport::advertise(const std::string& host) { state_->address.place.host = host; }

Result<void> UcxKvTransport::register_memory(std::span<std::byte> pool) {
  RUNAHEAD_CHECK(state_->memory == nullptr, "memory is registered once");
  if (pool.empty()) return {};
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = pool.data();
  params.length = pool.size();
  const ucs_status_t status = ucp_mem_map(state_->context, &params, &state_->memory);
  if (status == UCS_OK) return {};
  state_->memory = nullptr;
  return std::unexpected(ucx_error(ErrorCode::kUnavailable, "UCX cannot register the page pool (ulimit -l?)", status));
}

Result<std::unique_ptr<KvInbound>> UcxKvTransport::open_inbound(KvInboundParams params) {
  TRY(check_geometry(geometry_of(params)));
  KvAddress sender = TRY(parse_kv_address(params.sender_address, state_->address.transport));
  if (state_->stopping) return fail(ErrorCode::kUnavailable, "the ucx transport has been shut down");
  if (state_->num_inbounds >= limits::kKvStreamsMax)
    return fail(ErrorCode::kOverloaded, "too many KV streams are open");
  auto stream = std::make_shared<MessageInStream>(state_->streams, std::move(params));
  stream->start();
  asio::co_spawn(state_->streams->executor, State::connect(state_, stream, std::move(sender)), asio::detached);
  ++state_->num_inbounds;
  return std::make_unique<InboundHandle<MessageInStream>>(std::move(stream),
                                                          [state = state_] { --state->num_inbounds; });
}

Result<std::unique_ptr<KvOutbound>> UcxKvTransport::open_outbound(KvOutboundParams params) {
  TRY(check_geometry(geometry_of(params)));
  if (state_->stopping) return fail(ErrorCode::kUnavailable, "the ucx transport has been shut down");
  if (state_->outbounds.size() >= limits::kKvStreamsMax)
    return fail(ErrorCode::kOverloaded, "too many KV streams are open");
  const AttemptId attempt = params.attempt;
  if (state_->outbounds.contains(attempt))
    return fail(ErrorCode::kInvalidArgument, "this attempt has a KV stream from here already");
  auto stream = std::make_shared<MessageOutStream>(state_->streams, std::move(params));
  stream->start();
  state_->outbounds.emplace(attempt, stream);
  const auto endpoints = state_->endpoints;  // a copy: a refusal may close one
  for (const auto& [handle, endpoint] : endpoints) {
    if (!endpoint->hello || endpoint->hello->attempt != attempt || endpoint->is_closing()) continue;
    const StreamHello hello = *endpoint->hello;
    endpoint->hello.reset();
    state_->match(endpoint, hello, *stream);
  }
  auto forget = [state = state_, stream, attempt] { state->forget(attempt, *stream); };
  return std::make_unique<OutboundHandle<MessageOutStream>>(std::move(stream), std::move(forget));
}

asio::awaitable<void> UcxKvTransport::shutdown() {
  const auto state = state_;
  state->stop();
  while (!state->ended) co_await state->streams->changed.wait();
}

}  // namespace runahead
