#include "transport/tcp_socket.h"

#include <netinet/tcp.h>

#include <algorithm>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/ssl/error.hpp>
#include <functional>

#include "base/limits.h"

namespace runahead {
namespace {

using boost::system::error_code;

constexpr int kFreePortTries = 16;  // a port that is free on one address may be taken on the next

// Does this machine listen on IPv6 at all? Not where the kernel was started without it.
bool has_ipv6(const asio::any_io_executor& executor) {
  Tcp::acceptor probe(executor);
  error_code error;
  probe.open(Tcp::v6(), error);
  if (!error) probe.bind({asio::ip::address_v6::any(), 0}, error);
  return !error;
}

std::vector<Tcp::endpoint> with_port(const Tcp::resolver::results_type& found, uint16_t port) {
  std::vector<Tcp::endpoint> endpoints;
  for (const auto& entry : found) {
    const Tcp::endpoint endpoint(entry.endpoint().address(), port);
    if (std::ranges::find(endpoints, endpoint) == endpoints.end()) endpoints.push_back(endpoint);
    if (endpoints.size() == limits::kAddressesMax) break;
  }
  return endpoints;
}

// What needs no look-up: literals, and "*" by the addresses given.
std::vector<Tcp::endpoint> known_endpoints(const HostPort& address, const std::vector<asio::ip::address>& every) {
  std::vector<Tcp::endpoint> endpoints;
  error_code error;
  const auto literal = asio::ip::make_address(address.host, error);
  if (!error) endpoints.emplace_back(literal, address.port);
  if (address.host == "*")
    for (const auto& ip : every) endpoints.emplace_back(ip, address.port);
  return endpoints;
}

Result<std::vector<Tcp::endpoint>> resolve_now(const asio::any_io_executor& executor, const HostPort& address) {
  const asio::ip::address any =
      has_ipv6(executor) ? asio::ip::address(asio::ip::address_v6::any()) : asio::ip::address_v4::any();
  auto endpoints = known_endpoints(address, {any});
  if (!endpoints.empty()) return endpoints;
  Tcp::resolver resolver(executor);
  error_code error;
  const auto found = resolver.resolve(address.host, "0", error);
  if (!error) endpoints = with_port(found, address.port);
  if (endpoints.empty())
    return fail(ErrorCode::kInvalidArgument,
                "the host " + address.host + " is not known: give an address of this machine", "host");
  return endpoints;
}

// Calls `expire` at the deadline unless it has been destroyed before.
class ExpiryTimer {
 public:
  ExpiryTimer(asio::any_io_executor executor, const Clock& clock, Deadline deadline, std::function<void()> expire)
      : timer_(executor, std::clamp<Duration>(deadline.at - clock.now(), Duration(0), std::chrono::hours(1))) {
    timer_.async_wait([state = state_, expire = std::move(expire)](const error_code& error) {
      if (error || state->over) return;
      state->expired = true;
      expire();
    });
  }
  ~ExpiryTimer() { state_->over = true; }
  bool expired() const { return state_->expired; }

 private:
  struct State {  // shared with the handler, which may run after this object has gone
    bool over = false, expired = false;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
  asio::steady_timer timer_;
};

}  // namespace

Result<std::vector<Tcp::endpoint>> listen_endpoints(asio::any_io_executor executor, const HostPort& address,
                                                    bool allow_remote, std::string_view remote_needs) {
  std::vector<Tcp::endpoint> endpoints = TRY(resolve_now(executor, address));
  for (const Tcp::endpoint& endpoint : endpoints)
    if (!endpoint.address().is_loopback() && !allow_remote)
      return fail(ErrorCode::kInvalidArgument,
                  "refusing to listen on " + to_string(address) + ": " + std::string(remote_needs), "host");
  return endpoints;
}

Error address_in_use(const HostPort& address) {
  return {ErrorCode::kAddressInUse,
          "port " + std::to_string(address.port) + " on " + address.host +
              " is in use: stop what listens there or "
              "choose another port (0 takes a free one)",
          "port"};
}

uint16_t TcpListener::port() const {
  error_code ignored;
  return acceptors.empty() ? uint16_t{0} : acceptors.front().local_endpoint(ignored).port();
}

bool TcpListener::on_loopback() const {
  return std::ranges::all_of(acceptors, [](const Tcp::acceptor& acceptor) {
    error_code error;
    return acceptor.local_endpoint(error).address().is_loopback();
  });
}

void TcpListener::close() {
  error_code ignored;
  for (Tcp::acceptor& acceptor : acceptors) acceptor.close(ignored);
}

namespace {

error_code open_acceptor(Tcp::acceptor& acceptor, const Tcp::endpoint& endpoint) {
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error && endpoint.address().is_v6())  // "::" takes IPv4 too, whatever the machine's default is
    acceptor.set_option(asio::ip::v6_only(!endpoint.address().is_unspecified()), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(Tcp::acceptor::max_listen_connections, error);
  return error;
}

bool is_not_of_this_machine(const error_code& error) {
  return error == std::errc::address_not_available || error == std::errc::address_family_not_supported;
}

}  // namespace

Result<TcpListener> listen_on(asio::any_io_executor executor, std::vector<Tcp::endpoint> endpoints) {
  TcpListener listener;
  Error why{ErrorCode::kInvalidArgument, "there is no address to listen on", {}};
  for (Tcp::endpoint endpoint : endpoints) {
    if (endpoint.port() == 0) endpoint.port(listener.port());
    Tcp::acceptor acceptor(executor);
    const error_code error = open_acceptor(acceptor, endpoint);
    if (!error) {
      listener.acceptors.push_back(std::move(acceptor));
      continue;
    }
    if (error == asio::error::address_in_use)
      return std::unexpected(address_in_use({endpoint.address().to_string(), endpoint.port()}));
    why = {ErrorCode::kInvalidArgument, "cannot listen on " + to_string(endpoint) + ": " + error.message(), {}};
    if (!is_not_of_this_machine(error)) return std::unexpected(why);
  }
  if (listener.acceptors.empty()) return std::unexpected(why);
  return listener;
}

Result<TcpListener> listen_tcp(asio::any_io_executor executor, const HostPort& address, bool allow_remote,
                               std::string_view remote_needs) {
  const auto endpoints = TRY(listen_endpoints(executor, address, allow_remote, remote_needs));
  for (int tries = 1;; ++tries) {
    auto listener = listen_on(executor, endpoints);
    const bool taken = !listener && listener.error().code == ErrorCode::kAddressInUse;
    if (!taken || address.port != 0 || tries == kFreePortTries) return listener;
  }
}

Task<std::vector<Tcp::endpoint>> resolve_host(HostPort address, const Clock& clock, Deadline deadline) {
  if (is_wildcard(address.host)) address.host = "*";
  auto endpoints = known_endpoints(address, {asio::ip::address_v4::loopback(), asio::ip::address_v6::loopback()});
  if (!endpoints.empty()) co_return endpoints;
  const auto executor = co_await asio::this_coro::executor;
  Tcp::resolver resolver(executor);
  ExpiryTimer timer(executor, clock, deadline, [&resolver] { resolver.cancel(); });
  auto [error, found] = co_await resolver.async_resolve(address.host, std::to_string(address.port), kAsTuple);
  if (timer.expired()) co_return fail(ErrorCode::kDeadlineExceeded, "looking up " + address.host + " took too long");
  if (!error) endpoints = with_port(found, address.port);
  if (endpoints.empty())
    co_return fail(ErrorCode::kUnavailable, "the host " + address.host + " is not known: " + error.message());
  co_return endpoints;
}

namespace {

Task<Tcp::socket> connect_one(Tcp::endpoint endpoint, const Clock& clock, Deadline deadline) {
  const auto executor = co_await asio::this_coro::executor;
  Tcp::socket socket(executor);
  ExpiryTimer timer(executor, clock, deadline, [&socket] { close_socket(socket); });
  auto [error] = co_await socket.async_connect(endpoint, kAsTuple);
  if (timer.expired())
    co_return fail(ErrorCode::kDeadlineExceeded, "connecting to " + to_string(endpoint) + " took too long");
  if (error)
    co_return fail(ErrorCode::kUnavailable, "cannot connect to " + to_string(endpoint) + ": " + error.message());
  set_socket_options(socket);
  co_return std::move(socket);
}

}  // namespace

// In order, each with a bound: first a short one, for an address that leads nowhere must not delay those that do; those
// that were only slow share what is left of the time.
Task<Tcp::socket> connect_any(std::vector<Tcp::endpoint> endpoints, const Clock& clock, Deadline deadline) {
  Error why{ErrorCode::kUnavailable, {}, {}};
  for (const bool hurry : {true, false}) {
    if (hurry && endpoints.size() == 1) continue;
    std::vector<Tcp::endpoint> slow;
    for (size_t i = 0; i < endpoints.size(); ++i) {
      const Duration share = (deadline.at - clock.now()) / static_cast<int64_t>(endpoints.size() - i);
      const Duration timeout = hurry ? std::min<Duration>(share, limits::kFirstConnectTimeout) : share;
      auto socket = co_await connect_one(endpoints[i], clock, clock.after(timeout));
      if (socket) co_return std::move(socket);
      const bool late = socket.error().code == ErrorCode::kDeadlineExceeded;
      if (late) slow.push_back(endpoints[i]);
      if (hurry && late) continue;
      why.message += (why.message.empty() ? "" : "; ") + socket.error().message;
      why.code = socket.error().code;
    }
    endpoints = std::move(slow);
  }
  co_return std::unexpected(why);
}

Task<Tcp::socket> connect_tcp(HostPort address, const Clock& clock, Deadline deadline) {
  auto resolved = co_await resolve_host(address, clock, deadline);
  std::vector<Tcp::endpoint> endpoints = CO_TRY(resolved);
  co_return co_await connect_any(std::move(endpoints), clock, deadline);
}

void set_socket_options(Tcp::socket& socket) {
  error_code ignored;
  socket.set_option(Tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const unsigned timeout_ms = std::chrono::milliseconds(limits::kTcpUserTimeout).count();
  const int idle_s = 2, interval_s = 2;  // probes start after 2 s of silence, then TCP_USER_TIMEOUT decides
  const int fd = socket.native_handle();
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
}

void close_socket(Tcp::socket& socket) {
  error_code ignored;
  socket.shutdown(Tcp::socket::shutdown_send, ignored);
  socket.close(ignored);
}

Error connection_lost(std::string_view who, const boost::system::error_code& why) {
  const bool closed =
      why == asio::error::eof || why == asio::ssl::error::stream_truncated;  // our frames end themselves
  const std::string reason = closed ? "it closed the connection" : why.message();
  return {ErrorCode::kWorkerLost, "lost the connection to " + std::string(who) + ": " + reason, {}};
}

std::string to_string(const Tcp::endpoint& endpoint) {
  const auto ip = endpoint.address();
  const bool mapped = ip.is_v6() && ip.to_v6().is_v4_mapped();
  const std::string host =
      mapped ? asio::ip::make_address_v4(asio::ip::v4_mapped, ip.to_v6()).to_string() : ip.to_string();
  return to_string(HostPort{host, endpoint.port()});
}

}  // namespace runahead
