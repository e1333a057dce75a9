#include "services/gateway/http_server.h"

#include <netinet/tcp.h>

#include <random>

#include "base/log.h"
#include "services/gateway/api_error.h"
#include "services/gateway/http_connection.h"

namespace runahead {
namespace {

using asio::ip::tcp;
using namespace std::chrono_literals;

constexpr auto kAcceptRetry = 50ms;        // after running out of file descriptors
constexpr int kTcpUserTimeoutMs = 10'000;  // unacknowledged data for this long ends the connection

std::string random_prefix() {
  char text[16];
  std::snprintf(text, sizeof text, "req-%08x-", static_cast<unsigned>(std::random_device{}()));
  return text;
}

}  // namespace

HttpServer::HttpServer(asio::any_io_executor executor, Clock& clock, Handler handler, HttpServerOptions options)
    : executor_(executor),
      clock_(clock),
      handler_(std::move(handler)),
      options_(std::move(options)),
      gate_(executor, clock),
      connection_ended_(executor, clock),
      request_prefix_(random_prefix()) {}

HttpServer::~HttpServer() = default;

Result<void> HttpServer::listen() {
  listener_ = TRY(listen_tcp(executor_, options_.listen, options_.allow_remote));
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
      co_await clock_.sleep_for(kAcceptRetry);
      continue;
    }
    if (connections_.size() >= options_.connections_max) {
      refuse(std::move(socket));
      continue;
    }
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    socket.set_option(asio::detail::socket_option::integer<IPPROTO_TCP, TCP_USER_TIMEOUT>(kTcpUserTimeoutMs), ignored);
    auto connection = std::make_shared<HttpConnection>(*this, std::move(socket));
    connections_.insert(connection);
    gate_.spawn(serve(std::move(connection)));
  }
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
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
      "Connection: close\r\nContent-Length: " +
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
  while (!connections_.empty() && clock_.now() < end.at) co_await connection_ended_.wait(end);
  const auto left = connections_;
  for (const auto& connection : left) connection->abort();
  co_await gate_.close();
}

}  // namespace runahead
