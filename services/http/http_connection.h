// HttpConnection: one client's socket: reads a request, hands it to the handler, writes the answer, again. Internal to
// HttpServer. It is kept alive by the coroutine that runs it.
#pragma once

#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <expected>
#include <functional>
#include <string>

#include "base/async/stall_timer.h"
#include "services/http/http_server.h"

namespace runahead {

class HttpConnection final : public Exchange, public std::enable_shared_from_this<HttpConnection> {
 public:
  // An unauthenticated one has shown no key yet; busy: a whole request has come, and its answer is in work.
  enum class Phase { kUnauthenticated, kIdle, kBusy };

  HttpConnection(HttpServer& server, boost::asio::ip::tcp::socket socket);

  asio::awaitable<void> run();
  void stop_when_idle();  // closes now if no request is in work, else after its answer
  void evict();           // closes now, for others need the place; not in phase kBusy
  Phase phase() const { return phase_; }
  Time phase_began_at() const { return phase_began_at_; }
  bool evicted() const { return evicted_; }

  HttpRequest& request() override { return request_; }
  void body_is_gone() override;
  asio::awaitable<void> respond(HttpReply reply) override;
  asio::awaitable<bool> begin_stream(std::string content_type) override;
  asio::awaitable<bool> write(std::string bytes) override;
  asio::awaitable<bool> end_stream() override;
  void abort() override;
  bool disconnected() const override { return disconnected_; }
  void on_disconnect(std::function<void()> callback) override { on_disconnect_ = std::move(callback); }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  // true: a request is in request_; false: the connection has ended; else the answer to what is no request for a
  // handler.
  using Incoming = std::expected<bool, HttpReply>;

  asio::awaitable<Incoming> read_request();
  asio::awaitable<std::expected<size_t, HttpReply>> read_header();  // its length in input_, 0: ended
  asio::awaitable<Incoming> read_body(Parser& parser);
  std::expected<void, HttpReply> take_head(Parser& parser, size_t header_bytes);
  void take_trace(size_t headers);
  std::expected<void, HttpReply> check_body(const Parser& parser) const;
  std::expected<void, HttpReply> count_body(size_t bytes);
  HttpConnection* youngest_body();  // of those that are being read and hold room; this one counts in any case
  void give_way();
  bool body_can_be_skipped(const Parser& parser) const;
  bool wants_continue() const;
  // The answer, after which the connection is closed: where the next request begins is not known, or far away.
  std::unexpected<HttpReply> refuse_and_close(HttpReply reply);
  std::unexpected<HttpReply> refuse_and_close(int status, std::string code, std::string message);
  asio::awaitable<size_t> read_more();  // bytes appended to input_; 0: closed, failed or timed out
  asio::awaitable<bool> send(std::string head, std::string body = {});
  asio::awaitable<bool> write_all(const std::string& bytes);
  void count_answer(size_t bytes);
  void answer_is_gone();
  asio::awaitable<void> watch_for_disconnect();
  asio::awaitable<void> handle();
  asio::awaitable<void> give_up(Error why);
  asio::awaitable<void> linger();
  std::string response_head(int status);
  void begin_request();
  void end_request();
  void enter(Phase phase);
  void set_disconnected();

  HttpServer& server_;
  boost::beast::tcp_stream stream_;
  StallTimer timer_;  // of a header or a body that does not come
  std::string peer_;
  std::string input_;  // received, not yet parsed; at most kHttpReadBufferBytes
  HttpRequest request_;
  std::function<void()> on_disconnect_;
  Gate watcher_;
  Phase phase_ = Phase::kUnauthenticated;
  Time phase_began_at_;
  size_t body_bytes_ = 0;  // of this request, counted in server_.body_bytes_
  size_t answer_bytes_ = 0;  // that are being sent, counted in server_.answer_bytes_
  Time answer_began_at_{0};  // when that did
  size_t sent_bytes_ = 0;  // of this answer
  int status_ = 0;         // of this answer; 0: none yet
  bool http_1_1_ = true;
  bool head_only_ = false;  // HEAD: the answer has no body
  bool keep_alive_ = true;
  bool timed_out_ = false;
  bool reading_body_ = false;
  bool gave_way_ = false;  // the body was dropped for one that began before it
  bool answered_ = false;
  bool disconnected_ = false;
  bool evicted_ = false;
  bool watch_ends_ = false;
};

}  // namespace runahead
