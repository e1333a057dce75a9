#include "services/http/http_connection.h"

#include <algorithm>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/status.hpp>
#include <cctype>
#include <chrono>
#include <new>
#include <optional>
#include <stdexcept>

#include "base/check.h"
#include "base/log.h"
#include "base/wall_clock.h"
#include "services/http/access_log.h"
#include "services/http/api_error.h"
#include "services/http/header_check.h"
#include "services/http/http_target.h"

namespace runahead {
namespace {

namespace http = boost::beast::http;
using namespace std::chrono_literals;

constexpr auto kLinger = 2s;  // time for the client to read an answer that came before the end of its request
constexpr size_t kWriteBytes = 256 << 10;  // of one write: a slow reader of a large answer is no stalled one

bool is_request_id(std::string_view id) {
  return !id.empty() && id.size() <= limits::kRequestIdBytesMax && std::ranges::all_of(id, [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == ':';
  });
}

std::string media_type(std::string_view content_type) {
  const std::string type = lower(content_type.substr(0, content_type.find(';')));
  return type.substr(0, type.find_last_not_of(" \t") + 1);
}

HttpReply bad_request(std::string message) { return http_error(400, "invalid_request", std::move(message)); }
HttpReply no_room() { return error_reply(overloaded("too many large requests at once; try again", 1).error()); }
HttpReply answer_too_large() {
  return error_reply({ErrorCode::kTooLarge, "the answer is larger than all answers may be together; ask for less", ""});
}
HttpReply body_too_large(size_t bytes_max) {
  const std::string most =
      bytes_max % (1 << 20) == 0 ? std::to_string(bytes_max >> 20) + " MiB" : std::to_string(bytes_max) + " bytes";
  return http_error(413, "too_large", "the body is larger than the " + most + " that this route takes; send less");
}

}  // namespace

HttpConnection::HttpConnection(HttpServer& server, asio::ip::tcp::socket socket)
    : server_(server),
      stream_(std::move(socket)),
      timer_(server.executor_, server.clock_,
             [this] {
               timed_out_ = true;
               stream_.cancel();
             }),
      watcher_(server.executor_, server.clock_),
      phase_began_at_(server.clock_.now()) {
  boost::system::error_code error;
  const auto endpoint = stream_.socket().remote_endpoint(error);
  if (!error) peer_ = endpoint.address().to_string() + ":" + std::to_string(endpoint.port());
}

asio::awaitable<void> HttpConnection::run() {
  bool ended = false;
  while (!ended && keep_alive_ && !server_.stopping_) {
    begin_request();
    Incoming incoming = co_await read_request();
    timer_.stop();
    reading_body_ = false;
    if (!incoming) {
      body_is_gone();
      co_await respond(std::move(incoming.error()));
      if (!keep_alive_) co_await linger();
    } else if (*incoming) {
      co_await handle();
    } else {
      ended = true;
    }
    end_request();
    ended = ended || disconnected_;
  }
  timer_.cancel();
  stream_.close();
}

void HttpConnection::begin_request() {
  request_ = {};
  request_.peer = peer_;
  request_.request_id = server_.request_prefix_ + std::to_string(++server_.next_request_);
  request_.trace = new_trace(server_.trace_ids_, server_.options_.record_traces);
  status_ = 0;
  sent_bytes_ = 0;
  head_only_ = timed_out_ = gave_way_ = false;
}

void HttpConnection::end_request() {
  body_is_gone();
  if (status_ != 0)
    log_access({.request = request_,
                .status = status_,
                .sent_bytes = sent_bytes_,
                .seconds = seconds(server_.clock_.now() - request_.received_at),
                .complete = !disconnected_});
  if (phase_ == Phase::kBusy) enter(Phase::kIdle);
}

void HttpConnection::enter(Phase phase) {
  phase_ = phase;
  phase_began_at_ = server_.clock_.now();
}

void HttpConnection::body_is_gone() { server_.body_bytes_ -= std::exchange(body_bytes_, 0); }

asio::awaitable<void> HttpConnection::give_up(Error why) {
  log::warn("a {} of {} bytes ends: {}", request_.method, request_.body.size(), why.message);
  if (answered_) {
    abort();  // too late for an error: the client sees that the end of its answer is missing
    co_return;
  }
  HttpReply reply = error_reply(why);
  co_await respond(std::move(reply));
}

namespace {

Error no_memory() {
  return {ErrorCode::kUnavailable,
          "there is not enough memory for this request; send a smaller one, or try again later", ""};
}

}  // namespace

asio::awaitable<void> HttpConnection::handle() {
  answered_ = false;
  watch_ends_ = false;
  watcher_.spawn(watch_for_disconnect());
  std::optional<Error> fault;  // what one request asks for too much, or a fault of ours in it, ends that request
  try {
    co_await server_.handler_.handle(*this);
  } catch (const std::bad_alloc&) {
    fault = no_memory();
  } catch (const std::length_error&) {
    fault = no_memory();
  } catch (const nlohmann::json::exception& thrown) {  // a value that a route took for one of another type
    log::error("{} {}: {}", request_.method, request_.path, thrown.what());
    fault = Error{ErrorCode::kInternal, "this server has made a fault with this request", ""};
  }
  on_disconnect_ = nullptr;
  if (fault) co_await give_up(std::move(*fault));
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

std::unexpected<HttpReply> HttpConnection::refuse_and_close(HttpReply reply) {
  keep_alive_ = false;
  return std::unexpected(std::move(reply));
}

std::unexpected<HttpReply> HttpConnection::refuse_and_close(int status, std::string code, std::string message) {
  return refuse_and_close(http_error(status, std::move(code), std::move(message)));
}

asio::awaitable<std::expected<size_t, HttpReply>> HttpConnection::read_header() {
  stream_.expires_after(server_.options_.idle_timeout);
  bool begun = false;
  for (;;) {
    while (input_.starts_with("\r\n")) input_.erase(0, 2);  // old clients end a body with one more (RFC 9112, 2.2)
    if (!input_.empty() && !std::exchange(begun, true)) {
      request_.received_at = server_.clock_.now();
      request_.received_unix_ns = unix_time_ns();
      stream_.expires_never();
      timer_.start(server_.options_.header_timeout, shared_from_this());
    }
    // No method begins like that; a TLS client would wait for its answer until the header's time is over.
    if (begun && std::isalpha(static_cast<unsigned char>(input_.front())) == 0)
      co_return refuse_and_close(400, "bad_request",
                                 "this is no HTTP request; this port speaks HTTP without TLS: use http://");
    head_only_ = input_.starts_with("HEAD ");
    const size_t end = input_.find("\r\n\r\n");
    if (end != std::string::npos && end + 4 <= limits::kHeaderBytesMax) co_return end + 4;
    if (input_.find("\n\n") != std::string::npos)
      co_return refuse_and_close(400, "bad_request", "the lines of a header end with CR and LF");
    if (input_.size() >= limits::kHeaderBytesMax)
      co_return refuse_and_close(431, "header_too_large",
                                 "the header is larger than 16 KiB; send fewer or shorter fields");
    const size_t received = co_await read_more();
    if (timed_out_)
      co_return refuse_and_close(408, "request_timeout", "the header did not come in time; send it at once");
    if (received == 0) co_return size_t{0};
  }
}

asio::awaitable<HttpConnection::Incoming> HttpConnection::read_request() {
  const auto header_bytes = co_await read_header();
  if (!header_bytes) co_return std::unexpected(header_bytes.error());
  if (*header_bytes == 0) co_return false;
  Parser parser;
  if (auto taken = take_head(parser, *header_bytes); !taken) co_return refuse_and_close(std::move(taken.error()));

  std::optional<HttpReply> refusal = server_.handler_.admit(request_);
  if (request_.authorized && phase_ == Phase::kUnauthenticated) enter(Phase::kIdle);
  if (!refusal)
    if (auto checked = check_body(parser); !checked) refusal = std::move(checked.error());
  if (refusal && !body_can_be_skipped(parser)) co_return refuse_and_close(std::move(*refusal));

  Incoming body = co_await read_body(parser);
  if (!body || !*body) co_return body;
  if (refusal) co_return std::unexpected(std::move(*refusal));
  request_.body = std::move(parser.get().body());
  enter(Phase::kBusy);
  co_return true;
}

std::expected<void, HttpReply> HttpConnection::take_head(Parser& parser, size_t header_bytes) {
  if (auto checked = check_header(std::string_view(input_).substr(0, header_bytes)); !checked)
    return std::unexpected(bad_request(checked.error().message));
  parser.header_limit(limits::kHeaderBytesMax);
  parser.body_limit(boost::none);  // check_body() knows a better answer
  boost::system::error_code error;
  parser.put(asio::buffer(input_.data(), header_bytes), error);
  input_.erase(0, header_bytes);
  if (error || !parser.is_header_done())
    return std::unexpected(bad_request("the request is not valid HTTP/1.1: " + error.message()));

  const auto& message = parser.get();
  http_1_1_ = message.version() == 11;
  keep_alive_ = message.keep_alive();
  request_.method = std::string(message.method_string());
  HttpTarget target = split_target({message.target().data(), message.target().size()});
  request_.path = std::move(target.path);
  request_.query = std::move(target.query);
  for (const auto& field : message) request_.headers.emplace(lower(field.name_string()), std::string(field.value()));
  if (is_request_id(request_.header("x-request-id")))
    request_.request_id = std::string(request_.header("x-request-id"));
  take_trace(message.count("traceparent"));
  const bool of_server = request_.path == "*" && request_.method == "OPTIONS";
  if (!request_.path.starts_with('/') && !of_server)
    return std::unexpected(bad_request("the request target must be a path, like /v1/models"));
  return {};
}

// More than one is as none, as W3C says of what is malformed.
void HttpConnection::take_trace(size_t headers) {
  std::optional<TraceContext> callers;
  if (headers == 1) callers = parse_traceparent(request_.header("traceparent"));
  if (!callers) return;
  callers->span_id = std::move(request_.trace.span_id);
  request_.trace = std::move(*callers);
}

std::expected<void, HttpReply> HttpConnection::check_body(const Parser& parser) const {
  const auto refuse = [](int status, std::string code, std::string message) {
    return std::unexpected(http_error(status, std::move(code), std::move(message)));
  };
  const uint64_t length = parser.content_length().value_or(0);
  const bool has_length = parser.chunked() || parser.content_length().has_value();
  if (request_.method == "POST" && !has_length)
    return refuse(411, "length_required", "a POST needs Content-Length or Transfer-Encoding: chunked");
  if (length > request_.takes.bytes_max) return std::unexpected(body_too_large(request_.takes.bytes_max));
  const std::string coding = lower(request_.header("content-encoding"));
  if (!coding.empty() && coding != "identity")
    return refuse(415, "unsupported_media_type", "compressed bodies are not accepted; send it plain");
  const std::string_view type = request_.header("content-type");
  if ((parser.chunked() || length > 0) && !type.empty() && media_type(type) != request_.takes.type)
    return refuse(415, "unsupported_media_type", "send the body as Content-Type: " + request_.takes.type);
  const std::string expect = lower(request_.header("expect"));
  if (http_1_1_ && !expect.empty() && expect != "100-continue")
    return refuse(417, "expectation_failed", "the only supported Expect is 100-continue");
  return {};
}

// A short body is read and thrown away, so that the connection can go on.
bool HttpConnection::body_can_be_skipped(const Parser& parser) const {
  return !parser.chunked() && parser.content_length().value_or(0) <= limits::kHttpReadBufferBytes && !wants_continue();
}

bool HttpConnection::wants_continue() const { return http_1_1_ && !request_.header("expect").empty(); }

// What fits the connection's own buffer is paid for by its place; the rest counts as it comes, not as it is announced.
// Of bodies that come side by side the one that began last gives way, so that the first can be whole.
std::expected<void, HttpReply> HttpConnection::count_body(size_t bytes) {
  if (bytes <= limits::kHttpReadBufferBytes) return {};
  const size_t more = bytes - body_bytes_;
  while (server_.body_bytes_ + more > server_.options_.bodies_bytes_max) {
    HttpConnection* youngest = youngest_body();
    if (youngest == this) return refuse_and_close(no_room());
    youngest->give_way();
  }
  server_.body_bytes_ += more;
  body_bytes_ = bytes;
  return {};
}

HttpConnection* HttpConnection::youngest_body() {
  HttpConnection* youngest = this;
  for (const auto& connection : server_.connections_) {
    const bool holds_room = connection->reading_body_ && connection->body_bytes_ > 0;
    if (holds_room && connection->request_.received_at > youngest->request_.received_at) youngest = connection.get();
  }
  return youngest;
}

void HttpConnection::give_way() {
  body_is_gone();
  gave_way_ = true;
  stream_.cancel();  // it waits for more
}

asio::awaitable<HttpConnection::Incoming> HttpConnection::read_body(Parser& parser) {
  reading_body_ = true;
  parser.eager(true);
  parser.body_limit(request_.takes.bytes_max);
  if (!parser.is_done() && input_.empty() && wants_continue()) {
    const bool sent = co_await send("HTTP/1.1 100 Continue\r\n\r\n");
    if (!sent) co_return false;
  }
  stream_.expires_never();
  timer_.start(std::min(server_.options_.body_silence, server_.options_.body_timeout), shared_from_this());
  const Time end = server_.clock_.now() + server_.options_.body_timeout;
  while (!parser.is_done()) {
    if (!input_.empty()) {
      boost::system::error_code error;
      const size_t consumed = parser.put(asio::buffer(input_), error);
      input_.erase(0, consumed);
      if (error == http::error::body_limit) co_return refuse_and_close(body_too_large(request_.takes.bytes_max));
      if (error && error != http::error::need_more)
        co_return refuse_and_close(bad_request("the body is not valid: " + error.message()));
      if (auto counted = count_body(parser.get().body().size()); !counted)
        co_return std::unexpected(std::move(counted.error()));
      if (parser.is_done()) break;
      if (input_.size() >= limits::kHttpReadBufferBytes)
        co_return refuse_and_close(bad_request("a chunk header is too long"));
    }
    const size_t received = co_await read_more();
    if (gave_way_) co_return refuse_and_close(no_room());
    if (timed_out_ || server_.clock_.now() >= end)
      co_return refuse_and_close(408, "request_timeout", "the body did not come in time; send it without pauses");
    if (received == 0) co_return false;
    timer_.progress();
  }
  co_return true;
}

std::string HttpConnection::response_head(int status) {
  status_ = status;
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  std::string head = "HTTP/1.1 " + std::to_string(status) + " " + std::string(reason) + "\r\n";
  head += "Date: " + http_date() + "\r\nServer: runahead\r\n";
  head += "X-Request-Id: " + request_.request_id + "\r\n";
  head += "traceparent: " + request_.trace.traceparent() + "\r\n";
  head += keep_alive_ && !server_.stopping_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  for (const auto& [name, value] : request_.reply_headers) head += name + ": " + value + "\r\n";
  return head;
}

asio::awaitable<void> HttpConnection::respond(HttpReply reply) {
  answered_ = true;
  if (reply.body.size() > server_.options_.answers_bytes_max) reply = answer_too_large();
  if (server_.options_.on_error && !reply.error_code.empty()) server_.options_.on_error(request_, reply);
  std::string head = response_head(reply.status);
  for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
  const bool has_content = reply.status != 204 && reply.status != 304;
  if (has_content)
    head += "Content-Type: " + reply.content_type + "\r\nContent-Length: " + std::to_string(reply.body.size()) + "\r\n";
  if (!has_content || head_only_) reply.body.clear();
  co_await send(head + "\r\n", std::move(reply.body));
}

asio::awaitable<bool> HttpConnection::begin_stream(std::string content_type) {
  answered_ = true;
  keep_alive_ = keep_alive_ && http_1_1_ && !head_only_;
  std::string head = response_head(200) + "Content-Type: " + content_type + "\r\n";
  head += "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";
  if (http_1_1_) head += "Transfer-Encoding: chunked\r\n";
  const bool sent = co_await send(head + "\r\n");
  if (head_only_) set_disconnected();  // who asks for the head alone has all of the stream
  co_return sent && !head_only_;
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

asio::awaitable<bool> HttpConnection::send(std::string head, std::string body) {
  count_answer(head.size() + body.size());
  if (head.size() + body.size() <= kWriteBytes) head += std::exchange(body, {});  // one packet for a short answer
  co_await write_all(head);
  co_await write_all(body);
  answer_is_gone();
  co_return !disconnected_;
}

// As of bodies: what fits a buffer is paid for by the connection's place. Who reads slowly has had most of the time.
void HttpConnection::count_answer(size_t bytes) {
  if (disconnected_ || bytes <= limits::kHttpReadBufferBytes) return;
  while (server_.answer_bytes_ > 0 && server_.answer_bytes_ + bytes > server_.options_.answers_bytes_max) {
    HttpConnection* oldest = nullptr;
    for (const auto& connection : server_.connections_) {
      if (connection->answer_bytes_ == 0) continue;
      if (oldest == nullptr || connection->answer_began_at_ < oldest->answer_began_at_) oldest = connection.get();
    }
    oldest->answer_is_gone();
    oldest->abort();
  }
  answer_began_at_ = server_.clock_.now();
  server_.answer_bytes_ += answer_bytes_ = bytes;
}

void HttpConnection::answer_is_gone() { server_.answer_bytes_ -= std::exchange(answer_bytes_, 0); }

asio::awaitable<bool> HttpConnection::write_all(const std::string& bytes) {
  for (size_t at = 0; at < bytes.size() && !disconnected_;) {
    stream_.expires_after(server_.options_.stall_timeout);
    const auto slice = asio::buffer(bytes.data() + at, std::min(kWriteBytes, bytes.size() - at));
    const auto [error, sent] = co_await asio::async_write(stream_, slice, kAsTuple);
    at += sent;
    sent_bytes_ += sent;
    if (error) set_disconnected();
  }
  co_return !disconnected_;
}

void HttpConnection::abort() {
  stream_.close();
  set_disconnected();
}

void HttpConnection::evict() {
  evicted_ = true;
  stream_.close();
}

void HttpConnection::stop_when_idle() {
  keep_alive_ = false;
  if (phase_ != Phase::kBusy) stream_.close();
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
