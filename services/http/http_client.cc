#include "services/http/http_client.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "transport/tcp_socket.h"

namespace runahead {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using EventHandler = std::function<bool(std::string_view, std::string_view)>;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kResponseBytesMax = 512u << 20;  // an answer with logprobs of a long generation stays far below

// Splits a stream of bytes into server-sent events (WHATWG HTML, 9.2.6); comments are dropped.
class SseParser {
 public:
  // last_id: null, or where the id of the event is left that the handler is called for.
  SseParser(const EventHandler& handler, std::string* last_id) : handler_(handler), last_id_(last_id) {}
  // False when the handler has had enough.
  bool push(std::string_view bytes) {
    buffer_.append(bytes);
    size_t start = 0;
    for (size_t end; (end = buffer_.find('\n', start)) != std::string::npos; start = end + 1) {
      std::string_view line(buffer_.data() + start, end - start);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!take(line)) return false;
    }
    buffer_.erase(0, start);
    return true;
  }

 private:
  bool take(std::string_view line) {
    if (line.empty()) {
      if (last_id_ != nullptr && !data_.empty() && !id_.empty()) *last_id_ = id_;
      const bool more = data_.empty() || handler_(event_.empty() ? "message" : event_, data_);
      event_.clear();
      data_.clear();
      return more;
    }
    const size_t colon = line.find(':');
    const std::string_view field = line.substr(0, colon);
    std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "event") event_ = value;
    if (field == "id") id_ = value;
    if (field == "data") data_ += (data_.empty() ? "" : "\n") + std::string(value);
    return true;
  }

  const EventHandler& handler_;
  std::string* last_id_;
  std::string buffer_, event_, data_, id_;
};

struct ClientExchange {
  HostPort server;
  std::chrono::milliseconds timeout;
  http::request<http::string_body> request;
  const EventHandler* on_event = nullptr;  // null: read the whole body
  std::string* last_event_id = nullptr;
};

std::unexpected<Error> unreachable(const ClientExchange& x, const boost::system::error_code& error) {
  if (error == beast::error::timeout)
    return fail(ErrorCode::kDeadlineExceeded, "the server at " + to_string(x.server) + " stayed silent for " +
                                                  std::to_string(x.timeout.count() / 1000) + " s");
  return fail(ErrorCode::kUnavailable, "cannot talk to " + to_string(x.server) + ": " + error.message());
}

Task<HttpAnswer> exchange(ClientExchange x) {
  const AsioClock clock;
  auto connected =
      co_await connect_tcp(x.server, clock, clock.after(std::min<Duration>(x.timeout, limits::kConnectTimeout)));
  beast::tcp_stream stream(CO_TRY(connected));
  stream.expires_after(x.timeout);
  auto [write_error, written] = co_await http::async_write(stream, x.request, kTuple);
  if (write_error) co_return unreachable(x, write_error);

  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(kResponseBytesMax);
  stream.expires_after(x.timeout);
  auto [header_error, header_bytes] = co_await http::async_read_header(stream, buffer, parser, kTuple);
  if (header_error) co_return unreachable(x, header_error);
  HttpAnswer response{.status = static_cast<int>(parser.get().result_int())};
  const bool events = x.on_event && parser.get()[http::field::content_type].starts_with("text/event-stream");
  const EventHandler none = [](auto, auto) { return true; };
  SseParser sse(events ? *x.on_event : none, x.last_event_id);
  char chunk[16 << 10];
  while (!parser.is_done()) {
    parser.get().body() = {.data = chunk, .size = sizeof chunk, .more = true};
    stream.expires_after(x.timeout);
    auto [read_error, read_bytes] = co_await http::async_read_some(stream, buffer, parser, kTuple);
    if (read_error && read_error != http::error::need_buffer) co_return unreachable(x, read_error);
    const std::string_view got(chunk, sizeof chunk - parser.get().body().size);
    if (!events) {
      response.body.append(got);
    } else if (!sse.push(got)) {
      break;
    }
  }
  co_return response;
}

}  // namespace

struct HttpClient::Call {
  std::string method, target, json;
  const EventHandler* on_event = nullptr;
  std::string* last_event_id = nullptr;
};

Result<HttpAnswer> HttpClient::request(const std::string& method, const std::string& target,
                                       const std::string& json) const {
  return call({.method = method, .target = target, .json = json});
}

Result<HttpAnswer> HttpClient::post_stream(const std::string& target, const std::string& json,
                                           const EventHandler& on_event) const {
  return call({.method = "POST", .target = target, .json = json, .on_event = &on_event});
}

Result<HttpAnswer> HttpClient::get_stream(const std::string& target, std::string& last_event_id,
                                          const EventHandler& on_event) const {
  return call({.method = "GET", .target = target, .json = {}, .on_event = &on_event, .last_event_id = &last_event_id});
}

Result<HttpAnswer> HttpClient::call(Call call) const {
  const HostPort server = TRY(parse_host_port(address_));
  ClientExchange x{
      .server = server, .timeout = timeout_, .on_event = call.on_event, .last_event_id = call.last_event_id};
  x.request.method_string(call.method);
  x.request.target(call.target);
  x.request.version(11);
  x.request.set(http::field::host, address_);
  x.request.set(http::field::connection, "close");
  if (!api_key_.empty()) x.request.set(http::field::authorization, "Bearer " + api_key_);
  if (call.last_event_id != nullptr && !call.last_event_id->empty())
    x.request.set("Last-Event-ID", *call.last_event_id);
  if (call.method != "GET") {
    x.request.set(http::field::content_type, "application/json");
    x.request.body() = std::move(call.json);
    x.request.prepare_payload();
  }
  asio::io_context io;
  std::optional<Result<HttpAnswer>> result;
  asio::co_spawn(io, exchange(std::move(x)), [&](std::exception_ptr error, Result<HttpAnswer> r) {
    if (error) std::rethrow_exception(error);  // a programming error: expected failures are values
    result = std::move(r);
  });
  io.run();
  if (!result) return fail(ErrorCode::kInternal, "the exchange with " + address_ + " ended without a result");
  return std::move(*result);
}

Error error_of(const HttpAnswer& response) {
  const auto body = nlohmann::json::parse(response.body, nullptr, false);
  Error error{ErrorCode::kInternal, "the server answered with HTTP status " + std::to_string(response.status)};
  if (!body.is_object() || !body.contains("error") || !body["error"].is_object()) return error;
  error.message = body["error"].value("message", error.message);
  const std::string code =
      body["error"].contains("code") && body["error"]["code"].is_string() ? body["error"]["code"] : "";
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i)
    if (name(static_cast<ErrorCode>(i)) == code) error.code = static_cast<ErrorCode>(i);
  return error;
}

}  // namespace runahead
