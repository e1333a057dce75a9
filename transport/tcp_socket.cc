#include "transport/tcp_socket.h"

#include <netinet/tcp.h>

#include <algorithm>
#include <charconv>
#include <functional>

#include "base/limits.h"

namespace runahead {
namespace {

using boost::system::error_code;

// Addresses of a host; a literal needs no look-up.
Result<asio::ip::address> resolve_now(asio::any_io_executor executor, const std::string& host) {
  error_code error;
  const auto literal = asio::ip::make_address(host, error);
  if (!error) return literal;
  Tcp::resolver resolver(std::move(executor));
  const auto found = resolver.resolve(host, "0", error);
  if (error || found.empty())
    return fail(ErrorCode::kInvalidArgument, "the host " + host + " is not known: give an address of this machine",
                "host");
  return found.begin()->endpoint().address();
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

Result<HostPort> parse_host_port(std::string_view text) {
  const size_t colon = text.rfind(':');
  std::string_view host = colon == std::string_view::npos ? text : text.substr(0, colon);
  const std::string_view digits = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  HostPort address;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const bool host_ok = !host.empty() && host.size() <= 255 && (bracketed || host.find(':') == std::string_view::npos);
  if (!host_ok || digits.empty() || error != std::errc() || end != digits.data() + digits.size())
    return fail(ErrorCode::kInvalidArgument, "'" + std::string(text.substr(0, 300)) + "' is not of the form host:port");
  address.host = host;
  return address;
}

std::string to_string(const HostPort& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return (v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

Result<Tcp::endpoint> listen_endpoint(asio::any_io_executor executor, const HostPort& address, bool allow_remote) {
  const asio::ip::address ip = TRY(resolve_now(executor, address.host));
  if (ip.is_loopback() || allow_remote) return Tcp::endpoint(ip, address.port);
  return fail(ErrorCode::kInvalidArgument,
              "refusing to listen on " + to_string(address) +
                  ": there is no TLS yet, so an address beyond loopback needs --insecure-network",
              "host");
}

Error address_in_use(const HostPort& address) {
  return {ErrorCode::kAddressInUse,
          "port " + std::to_string(address.port) + " on " + address.host +
              " is in use: stop what listens there or "
              "choose another port (0 takes a free one)",
          "port"};
}

Result<Tcp::acceptor> listen_tcp(asio::any_io_executor executor, const HostPort& address, bool allow_remote) {
  const Tcp::endpoint endpoint = TRY(listen_endpoint(executor, address, allow_remote));
  Tcp::acceptor acceptor(std::move(executor));
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(Tcp::acceptor::max_listen_connections, error);
  if (error == asio::error::address_in_use) return std::unexpected(address_in_use(address));
  if (error)
    return fail(ErrorCode::kInvalidArgument, "cannot listen on " + to_string(address) + ": " + error.message());
  return acceptor;
}

Task<Tcp::endpoint> resolve_host(HostPort address, const Clock& clock, Deadline deadline) {
  error_code error;
  const auto literal = asio::ip::make_address(address.host, error);
  if (!error) co_return Tcp::endpoint(literal, address.port);
  const auto executor = co_await asio::this_coro::executor;
  Tcp::resolver resolver(executor);
  ExpiryTimer timer(executor, clock, deadline, [&resolver] { resolver.cancel(); });
  auto [resolve_error, found] = co_await resolver.async_resolve(address.host, std::to_string(address.port), kAsTuple);
  if (timer.expired()) co_return fail(ErrorCode::kDeadlineExceeded, "looking up " + address.host + " took too long");
  if (resolve_error || found.empty())
    co_return fail(ErrorCode::kUnavailable, "the host " + address.host + " is not known: " + resolve_error.message());
  co_return found.begin()->endpoint();
}

Task<Tcp::socket> connect_tcp(HostPort address, const Clock& clock, Deadline deadline) {
  auto resolved = co_await resolve_host(address, clock, deadline);
  const Tcp::endpoint endpoint = CO_TRY(resolved);
  const auto executor = co_await asio::this_coro::executor;
  Tcp::socket socket(executor);
  ExpiryTimer timer(executor, clock, deadline, [&socket] { close_socket(socket); });
  auto [error] = co_await socket.async_connect(endpoint, kAsTuple);
  const std::string place = to_string(address);
  if (timer.expired()) co_return fail(ErrorCode::kDeadlineExceeded, "connecting to " + place + " took too long");
  if (error) co_return fail(ErrorCode::kUnavailable, "cannot connect to " + place + ": " + error.message());
  set_socket_options(socket);
  co_return std::move(socket);
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
  const std::string reason = why == asio::error::eof ? "it closed the connection" : why.message();
  return {ErrorCode::kWorkerLost, "lost the connection to " + std::string(who) + ": " + reason, {}};
}

}  // namespace runahead
