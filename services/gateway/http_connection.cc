#include "services/gateway/http_connection.h"

#include <algorithm>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/status.hpp>
#include <cctype>
#include <new>
#include <stdexcept>

#include "base/check.h"
#include "base/log.h"
#include "services/gateway/api_error.h"
#include "services/gateway/header_check.h"

namespace runahead {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using namespace std::chrono_literals;

constexpr auto kLinger = 2s;  // time for the client to read an answer that came before the end of its request

std::unexpected<HttpReply> refuse(int status, std::string code, std::string message) {
  return std::unexpected(http_error(status, std::move(code), std::move(message)));
}
std::unexpected<HttpReply> bad_request(std::string message) {
  return refuse(400, "invalid_request", std::move(message));
}
std::unexpected<HttpReply> body_too_large() {
  return refuse(413, "too_large", "the body is larger than 16 MiB; send a shorter prompt");
}

bool is_request_id(std::string_view id) {
  return !id.empty() && id.size() <= limits::kRequestIdBytesMax && std::ranges::all_of(id, [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == ':';
  });
}

}  // namespace

HttpConnection::HttpConnection(HttpServer& server, asio::ip::tcp::socket socket)
    : server_(server), stream_(std::move(socket)), watcher_(server.executor_, server.clock_) {}

asio::awaitable<void> HttpConnection::run() {
  bool ended = false;
  while (!ended && keep_alive_ && !server_.stopping_) {
    Incoming incoming = co_await read_request();
    busy_ = true;
    if (!incoming) {
      keep_alive_ = false;
      co_await respond(std::move(incoming.error()));
      co_await linger();
      ended = true;
    } else if (*incoming) {
      co_await handle();
    } else {
      ended = true;
    }
    server_.body_bytes_ -= std::exchange(body_bytes_reserved_, 0);
    busy_ = false;
    ended = ended || disconnected_;
  }
  stream_.close();
}

asio::awaitable<void> HttpConnection::give_up() {
  log::warn("there is not enough memory for a {} of {} bytes", request_.method, request_.body.size());
  if (answered_) {
    abort();  // too late for an error: the client sees that the end of its answer is missing
    co_return;
  }
  HttpReply reply = error_reply(
      {ErrorCode::kUnavailable, "there is not enough memory for this request; send a smaller one, or try again later", ""});
  co_await respond(std::move(reply));
}

asio::awaitable<void> HttpConnection::handle() {
  answered_ = false;
  watch_ends_ = false;
  watcher_.spawn(watch_for_disconnect());
  bool failed_allocation = false;  // what one request asks for too much ends that request
  try {
    co_await server_.handler_(*this);
  } catch (const std::bad_alloc&) {
    failed_allocation = true;
  } catch (const std::length_error&) {
    failed_allocation = true;
  }
  on_disconnect_ = nullptr;
  if (failed_allocation) co_await give_up();
  RUNAHEAD_CHECK(answered_ || disconnected_, "a handler answers");
  watch_ends_ = true;
  stream_.cancel();
  co_await watcher_.close();
}

// Bytes of a next request may come meanwhile; they wait in input_. When it is full the client has pipelined 64 KiB, and
// its going away is noticed by the next write only.
asio::awaitable<void> HttpConnection::watch_for_disconnect() {
  stream_.expires_never();
  while (input_.size() < limits::kHttpReadBufferBytes) {
    const size_t received = co_await read_more();
    if (received == 0) {
      if (!watch_ends_) set_disconnected();
      co_return;
    }
    if (watch_ends_) co_return;
  }
}

void HttpConnection::set_disconnected() {
  if (std::exchange(disconnected_, true)) return;
  if (auto callback = std::exchange(on_disconnect_, nullptr)) callback();
}

asio::awaitable<size_t> HttpConnection::read_more() {
  const size_t before = input_.size();
  input_.resize(limits::kHttpReadBufferBytes);
  const auto [error, received] =
      co_await stream_.async_read_some(asio::buffer(input_.data() + before, input_.size() - before), kAsTuple);
  input_.resize(before + received);
  co_return error ? 0 : received;
}

asio::awaitable<std::expected<size_t, HttpReply>> HttpConnection::read_header() {
  if (input_.empty()) {
    stream_.expires_after(server_.options_.idle_timeout);
    const size_t received = co_await read_more();
    if (received == 0) co_return size_t{0};
  }
  request_ = {};
  request_.received_at = server_.clock_.now();
  request_.request_id = server_.request_prefix_ + std::to_string(++server_.next_request_);
  stream_.expires_after(server_.options_.header_timeout);
  for (;;) {
    const size_t end = input_.find("\r\n\r\n");
    if (end != std::string::npos && end + 4 <= limits::kHeaderBytesMax) co_return end + 4;
    if (input_.size() >= limits::kHeaderBytesMax)
      co_return refuse(431, "header_too_large", "the header is larger than 16 KiB; send fewer or shorter fields");
    const size_t received = co_await read_more();
    if (received == 0) co_return size_t{0};
  }
}

asio::awaitable<HttpConnection::Incoming> HttpConnection::read_request() {
  const auto header_bytes = co_await read_header();
  if (!header_bytes) co_return std::unexpected(header_bytes.error());
  if (*header_bytes == 0) co_return false;
  if (auto checked = check_header(std::string_view(input_).substr(0, *header_bytes)); !checked)
    co_return bad_request(checked.error().message);

  Parser parser;
  parser.header_limit(limits::kHeaderBytesMax);
  parser.body_limit(limits::kJsonBodyBytesMax);
  boost::system::error_code error;
  parser.put(asio::buffer(input_.data(), *header_bytes), error);
  input_.erase(0, *header_bytes);
  if (error == http::error::body_limit) co_return body_too_large();
  if (error || !parser.is_header_done()) co_return bad_request("the request is not valid HTTP/1.1: " + error.message());
  http_1_1_ = parser.get().version() == 11;
  keep_alive_ = parser.get().keep_alive();
  fill_request(parser);
  if (auto checked = check_request(parser); !checked) co_return std::unexpected(std::move(checked.error()));

  Incoming body = co_await read_body(parser);
  if (body && *body) request_.body = std::move(parser.get().body());
  co_return body;
}

void HttpConnection::fill_request(Parser& parser) {
  const auto& message = parser.get();
  request_.method = std::string(message.method_string());
  const std::string_view target(message.target().data(), message.target().size());
  const size_t question = target.find('?');
  request_.path = std::string(target.substr(0, question));
  if (question != std::string_view::npos) request_.query = std::string(target.substr(question + 1));
  for (const auto& field : message) {
    std::string name(field.name_string());
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    request_.headers.emplace(std::move(name), std::string(field.value()));
  }
  if (is_request_id(request_.header("x-request-id")))
    request_.request_id = std::string(request_.header("x-request-id"));
}

std::expected<void, HttpReply> HttpConnection::check_request(const Parser& parser) {
  if (!request_.path.starts_with('/')) return bad_request("the request target must be a path, like /v1/models");
  const bool has_body = parser.chunked() || parser.content_length().value_or(0) > 0;
  const bool has_length = parser.chunked() || parser.content_length().has_value();
  if (request_.method == "POST" && !has_length)
    return refuse(411, "length_required", "a POST needs Content-Length or Transfer-Encoding: chunked");
  if (!request_.header("content-encoding").empty() && request_.header("content-encoding") != "identity")
    return refuse(415, "unsupported_media_type", "compressed bodies are not accepted; send plain JSON");
  const std::string_view type = request_.header("content-type");
  if (has_body && !type.empty() && !type.starts_with("application/json"))
    return refuse(415, "unsupported_media_type", "send the body as Content-Type: application/json");
  if (const auto expect = request_.header("expect"); !expect.empty() && expect != "100-continue")
    return refuse(417, "expectation_failed", "the only supported Expect is 100-continue");

  const size_t reserved = parser.chunked() ? limits::kJsonBodyBytesMax : parser.content_length().value_or(0);
  if (server_.body_bytes_ + reserved > limits::kHttpBodiesBytesMax)
    return std::unexpected(error_reply({ErrorCode::kOverloaded, "too many large requests at once; try again", "1"}));
  server_.body_bytes_ += reserved;
  body_bytes_reserved_ = reserved;
  return {};
}

asio::awaitable<HttpConnection::Incoming> HttpConnection::read_body(Parser& parser) {
  parser.eager(true);
  if (!parser.is_done() && input_.empty() && !request_.header("expect").empty()) {
    const bool sent = co_await send("HTTP/1.1 100 Continue\r\n\r\n");
    if (!sent) co_return false;
  }
  stream_.expires_after(server_.options_.body_timeout);
  while (!parser.is_done()) {
    if (!input_.empty()) {
      boost::system::error_code error;
      const size_t consumed = parser.put(asio::buffer(input_), error);
      input_.erase(0, consumed);
      if (error == http::error::body_limit) co_return body_too_large();
      if (error && error != http::error::need_more) co_return bad_request("the body is not valid: " + error.message());
      if (parser.is_done()) break;
      if (input_.size() >= limits::kHttpReadBufferBytes) co_return bad_request("a chunk header is too long");
    }
    const size_t received = co_await read_more();
    if (received == 0) co_return false;
  }
  co_return true;
}

std::string HttpConnection::response_head(int status, const std::string& content_type) const {
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  std::string head = "HTTP/1.1 " + std::to_string(status) + " " + std::string(reason) + "\r\nServer: runahead\r\n";
  head += "Content-Type: " + content_type + "\r\nX-Request-Id: " + request_.request_id + "\r\n";
  head += keep_alive_ && !server_.stopping_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  return head;
}

asio::awaitable<void> HttpConnection::respond(HttpReply reply) {
  answered_ = true;
  std::string bytes = response_head(reply.status, reply.content_type);
  for (const auto& [name, value] : reply.headers) bytes += name + ": " + value + "\r\n";
  bytes += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n\r\n";
  bytes += reply.body;
  co_await send(std::move(bytes));
}

asio::awaitable<bool> HttpConnection::begin_stream(std::string content_type) {
  answered_ = true;
  keep_alive_ = keep_alive_ && http_1_1_;
  std::string head = response_head(200, content_type) + "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";
  if (http_1_1_) head += "Transfer-Encoding: chunked\r\n";
  co_return co_await send(head + "\r\n");
}

asio::awaitable<bool> HttpConnection::write(std::string bytes) {
  if (bytes.empty()) co_return !disconnected_;
  if (http_1_1_) {
    char size[20];
    std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
    bytes = size + bytes + "\r\n";
  }
  co_return co_await send(std::move(bytes));
}

asio::awaitable<bool> HttpConnection::end_stream() {
  std::string last = http_1_1_ ? "0\r\n\r\n" : "";
  co_return co_await send(std::move(last));
}

asio::awaitable<bool> HttpConnection::send(std::string bytes) {
  if (disconnected_) co_return false;
  stream_.expires_after(server_.options_.stall_timeout);
  const auto [error, sent] = co_await asio::async_write(stream_, asio::buffer(bytes), kAsTuple);
  if (error) set_disconnected();
  co_return !error;
}

void HttpConnection::abort() {
  stream_.close();
  set_disconnected();
}

void HttpConnection::stop_when_idle() {
  keep_alive_ = false;
  if (!busy_) stream_.close();
}

// A close with unread input makes the kernel send a reset, which can destroy the answer before the client has read it.
asio::awaitable<void> HttpConnection::linger() {
  boost::system::error_code ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kLinger);
  for (;;) {
    input_.clear();
    const size_t received = co_await read_more();
    if (received == 0) co_return;
  }
}

}  // namespace runahead
