#include "services/http/http_server.h"

#include <netinet/tcp.h>

#include "base/log.h"
#include "services/http/api_error.h"
#include "services/http/http_connection.h"

namespace runahead {
namespace {

using asio::ip::tcp;

constexpr std::string_view kRemoteNeedsProxy =
    "HTTP has no TLS of its own here: keep it on loopback behind a proxy, or let it listen beyond loopback by "
    "--insecure-http (or --insecure-network, which lets everything)";

std::string random_prefix() {
  char text[16];
  std::snprintf(text, sizeof text, "req-%08x-", static_cast<unsigned>(SystemRng().next()));
  return text;
}

}  // namespace

HttpServer::HttpServer(asio::any_io_executor executor, Clock& clock, const HttpHandler& handler,
                       HttpServerOptions options)
    : executor_(executor),
      clock_(clock),
      handler_(handler),
      options_(std::move(options)),
      gate_(executor, clock),
      connection_ended_(executor, clock),
      request_prefix_(random_prefix()),
      trace_ids_(SystemRng().next()) {}

HttpServer::~HttpServer() = default;

Result<void> HttpServer::listen() {
  listener_ = TRY(listen_tcp(executor_, options_.listen, options_.allow_remote, kRemoteNeedsProxy));
  address_ = {options_.listen.host, listener_.port()};
  for (tcp::acceptor& acceptor : listener_.acceptors) gate_.spawn(accept_loop(acceptor));
  return {};
}

asio::awaitable<void> HttpServer::accept_loop(tcp::acceptor& acceptor) {
  while (!stopping_) {
    auto [error, socket] = co_await acceptor.async_accept(kAsTuple);
    if (stopping_) co_return;
    if (error) {
      log::warn("cannot accept a connection: {}", error.message());
      co_await clock_.sleep_for(kAcceptPause);
      continue;
    }
    if (!make_room()) {
      refuse(std::move(socket));
      continue;
    }
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    // Unacknowledged data ends the connection no sooner than a write that does not go on.
    using UserTimeout = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_USER_TIMEOUT>;
    const auto timeout = std::chrono::duration_cast<std::chrono::milliseconds>(options_.stall_timeout);
    socket.set_option(UserTimeout(static_cast<int>(timeout.count())), ignored);
    auto connection = std::make_shared<HttpConnection>(*this, std::move(socket));
    connections_.insert(connection);
    gate_.spawn(serve(std::move(connection)));
  }
}

bool HttpServer::make_room() {
  using Phase = HttpConnection::Phase;
  const Time idle_for_long = clock_.now() - options_.header_timeout;
  size_t unauthenticated = 0, places = 0;
  HttpConnection* oldest_unauthenticated = nullptr;
  HttpConnection* oldest_idle = nullptr;
  const auto older = [](HttpConnection* one, HttpConnection* other) {
    return one == nullptr || other->phase_began_at() < one->phase_began_at() ? other : one;
  };
  for (const auto& connection : connections_) {
    if (connection->evicted()) continue;
    ++places;
    if (connection->phase() == Phase::kUnauthenticated) {
      ++unauthenticated;
      oldest_unauthenticated = older(oldest_unauthenticated, connection.get());
    } else if (connection->phase() == Phase::kIdle && connection->phase_began_at() < idle_for_long) {
      oldest_idle = older(oldest_idle, connection.get());
    }
  }
  if (unauthenticated < options_.unauthenticated_max && places < options_.connections_max) return true;
  HttpConnection* goes = oldest_unauthenticated != nullptr ? oldest_unauthenticated : oldest_idle;
  if (goes != nullptr) goes->evict();
  return goes != nullptr;
}

asio::awaitable<void> HttpServer::serve(std::shared_ptr<HttpConnection> connection) {
  co_await connection->run();
  connections_.erase(connection);
  connection_ended_.notify();
}

// A fresh socket takes these few bytes without blocking.
void HttpServer::refuse(tcp::socket socket) {
  const Error error{ErrorCode::kUnavailable, "too many connections; try again later"};
  const std::string body = to_text(error_json(error));
  const std::string answer =
      "HTTP/1.1 503 Service Unavailable\r\nDate: " + http_date() +
      "\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(answer), ignored);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

asio::awaitable<void> HttpServer::shutdown(Duration drain) {
  stopping_ = true;
  listener_.close();
  for (const auto& connection : connections_) connection->stop_when_idle();
  const Deadline end = clock_.after(drain);
  while (!connections_.empty() && clock_.now() < end.at) co_await connection_ended_.wait_until(end);
  const auto left = connections_;
  for (const auto& connection : left) connection->abort();
  co_await gate_.close();
}

}  // namespace runahead
