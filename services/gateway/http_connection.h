// HttpConnection: one client's socket: reads a request, hands it to the handler, writes the answer, again. Internal to
// HttpServer. It is kept alive by the coroutine that runs it.
#pragma once

#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <expected>
#include <functional>
#include <string>

#include "services/gateway/http_server.h"

namespace runahead {

class HttpConnection final : public Exchange {
 public:
  HttpConnection(HttpServer& server, boost::asio::ip::tcp::socket socket);

  asio::awaitable<void> run();
  void stop_when_idle();  // closes now if no request is in work, else after its answer

  HttpRequest& request() override { return request_; }
  asio::awaitable<void> respond(HttpReply reply) override;
  asio::awaitable<bool> begin_stream(std::string content_type) override;
  asio::awaitable<bool> write(std::string bytes) override;
  asio::awaitable<bool> end_stream() override;
  void abort() override;
  bool disconnected() const override { return disconnected_; }
  void on_disconnect(std::function<void()> callback) override { on_disconnect_ = std::move(callback); }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  // true: a request is in request_; false: the connection has ended; else what to answer before closing.
  using Incoming = std::expected<bool, HttpReply>;

  asio::awaitable<Incoming> read_request();
  asio::awaitable<std::expected<size_t, HttpReply>> read_header();  // its length in input_, 0: ended
  asio::awaitable<Incoming> read_body(Parser& parser);
  std::expected<void, HttpReply> check_request(const Parser& parser);
  void fill_request(Parser& parser);
  asio::awaitable<size_t> read_more();  // bytes appended to input_; 0: closed, failed or timed out
  asio::awaitable<bool> send(std::string bytes);
  asio::awaitable<void> watch_for_disconnect();
  asio::awaitable<void> handle();
  asio::awaitable<void> give_up();
  asio::awaitable<void> linger();
  std::string response_head(int status, const std::string& content_type) const;
  void set_disconnected();

  HttpServer& server_;
  boost::beast::tcp_stream stream_;
  std::string input_;  // received, not yet parsed; at most kHttpReadBufferBytes
  HttpRequest request_;
  std::function<void()> on_disconnect_;
  Gate watcher_;
  size_t body_bytes_reserved_ = 0;
  bool http_1_1_ = true;
  bool keep_alive_ = true;
  bool busy_ = false;
  bool answered_ = false;
  bool disconnected_ = false;
  bool watch_ends_ = false;
};

}  // namespace runahead
