#include "transport/control/tcp_control.h"

#include <boost/asio/co_spawn.hpp>

#include "base/limits.h"
#include "base/log_limit.h"

namespace runahead {

struct TcpControlServer::State {
  State(asio::any_io_executor e, Clock& c, TcpListener l, std::shared_ptr<TlsIdentity> i)
      : executor(std::move(e)),
        clock(c),
        identity(std::move(i)),
        listener(std::move(l)),
        inbox(std::make_shared<ControlInbox>(executor, clock)),
        changed(executor, clock) {}

  static asio::awaitable<void> accept_peers(std::shared_ptr<State> self, Tcp::acceptor* acceptor);
  static asio::awaitable<void> serve_peer(std::shared_ptr<State> self, std::shared_ptr<Link> link);

  asio::any_io_executor executor;
  Clock& clock;
  std::shared_ptr<TlsIdentity> identity;
  TcpListener listener;
  std::shared_ptr<ControlInbox> inbox;
  std::map<PeerId, std::shared_ptr<Link>> links;
  std::map<PeerId, std::shared_ptr<Link>> unregistered;  // those of them that nobody has admitted, the oldest first
  PeerId last_peer = 0;
  int coroutines = 0;
  bool stopping = false;
  Wake changed;
};

namespace {

auto on_end(const auto& self) {
  return [self](std::exception_ptr) {
    --self->coroutines;
    self->changed.notify();
  };
}

}  // namespace

Result<std::unique_ptr<TcpControlServer>> TcpControlServer::create(asio::any_io_executor executor, Clock& clock,
                                                                   Options options) {
  auto listener = TRY(listen_tcp(executor, options.listen, options.allow_remote || options.identity));
  auto state = std::make_shared<State>(executor, clock, std::move(listener), std::move(options.identity));
  for (Tcp::acceptor& acceptor : state->listener.acceptors) {
    ++state->coroutines;
    asio::co_spawn(executor, State::accept_peers(state, &acceptor), on_end(state));
  }
  return std::unique_ptr<TcpControlServer>(new TcpControlServer(std::move(state)));
}

TcpControlServer::~TcpControlServer() {
  state_->stopping = true;
  state_->listener.close();
  for (auto& [peer, link] : state_->links) link->disconnect();
}

uint16_t TcpControlServer::port() const { return state_->listener.port(); }

asio::awaitable<void> TcpControlServer::State::accept_peers(std::shared_ptr<State> self, Tcp::acceptor* acceptor) {
  while (!self->stopping) {
    auto [error, socket] = co_await acceptor->async_accept(kAsTuple);
    if (self->stopping) co_return;
    if (error) {
      warn_limited("control accept", "control: cannot accept a connection: {}", error.message());
      co_await self->changed.wait_until(self->clock.after(kAcceptPause));
      continue;
    }
    if (self->unregistered.size() >= limits::kUnregisteredPeersMax) {
      warn_limited("unregistered", "control: {} connections have not said who they are; dropping the oldest",
                   self->unregistered.size());
      self->unregistered.begin()->second->close("others wait");  // out of `links` when its coroutine ends
      self->unregistered.erase(self->unregistered.begin());
    }
    set_socket_options(socket);
    auto link = Link::create(++self->last_peer, std::move(socket), self->clock, self->inbox);
    self->links.emplace(link->peer(), link);
    self->unregistered.emplace(link->peer(), link);
    ++self->coroutines;
    asio::co_spawn(self->executor, serve_peer(self, std::move(link)), on_end(self));
  }
}

asio::awaitable<void> TcpControlServer::State::serve_peer(std::shared_ptr<State> self, std::shared_ptr<Link> link) {
  auto opened =
      co_await Link::open(link, self->identity, PeerSocket::End::kAccepted, self->clock.after(limits::kConnectTimeout));
  if (!opened) warn_limited("control refused", "control: refused a connection: {}", opened.error().message);
  if (self->stopping) link->disconnect();
  co_await link->join();
  self->links.erase(link->peer());
  self->unregistered.erase(link->peer());
}

Task<ControlEvent> TcpControlServer::receive(Deadline deadline) { return state_->inbox->receive(deadline); }

void TcpControlServer::send(PeerId peer, std::string payload) {
  const auto found = state_->links.find(peer);
  if (found != state_->links.end()) found->second->send(std::move(payload));
}

void TcpControlServer::disconnect(PeerId peer) {
  const auto found = state_->links.find(peer);
  if (found != state_->links.end()) found->second->disconnect();
}

void TcpControlServer::admit(PeerId peer) {
  const auto found = state_->unregistered.find(peer);
  if (found == state_->unregistered.end()) return;
  found->second->admit();
  state_->unregistered.erase(found);
}

asio::awaitable<void> TcpControlServer::shutdown() {
  const auto state = state_;
  state->stopping = true;
  state->listener.close();
  for (auto& [peer, link] : state->links) link->disconnect();
  state->changed.notify();
  while (state->coroutines > 0) co_await state->changed.wait();
}

TcpControlClient::TcpControlClient(asio::any_io_executor executor, Clock& clock, HostPort server,
                                   std::shared_ptr<TlsIdentity> identity)
    : executor_(executor),
      clock_(clock),
      server_(std::move(server)),
      identity_(std::move(identity)),
      inbox_(std::make_shared<ControlInbox>(executor, clock)) {}

TcpControlClient::~TcpControlClient() {
  if (link_) link_->disconnect();
}

Task<PeerId> TcpControlClient::connect(Deadline deadline) {
  if (link_) link_->disconnect();
  link_.reset();
  auto connected = co_await connect_tcp(server_, clock_, deadline);
  Tcp::socket socket = CO_TRY(connected);
  boost::system::error_code ignored;
  local_address_ = socket.local_endpoint(ignored).address().to_string();
  auto link = Link::create(++last_peer_, std::move(socket), clock_, inbox_);
  link->admit();  // whom we call is no stranger
  auto opened = co_await Link::open(link, identity_, PeerSocket::End::kConnected, deadline);
  CO_TRY(opened);
  link_ = link;
  co_return link->peer();
}

Task<ControlEvent> TcpControlClient::receive(Deadline deadline) { return inbox_->receive(deadline); }

void TcpControlClient::send(PeerId peer, std::string payload) {
  if (link_ && link_->peer() == peer) link_->send(std::move(payload));
}

void TcpControlClient::disconnect(PeerId peer) {
  if (link_ && link_->peer() == peer) link_->disconnect();
}

asio::awaitable<void> TcpControlClient::shutdown() {
  if (!link_) co_return;
  const auto link = link_;
  link->disconnect();
  co_await link->join();
}

}  // namespace runahead
