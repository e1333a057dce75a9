// HttpServer: HTTP/1.1 on Beast's parser, for this project's API only: one request at a time on a connection, JSON
// bodies, whole answers or event streams. Exchange is what a handler sees of it.
//   threads  the io_context thread; handlers run there.
//   limits   base/limits.h: connections, header, body, bodies of all connections together, answers of all that are not read
//            yet, idle time, header and body time. Bodies count as they come, not as they are announced.
//   room     connections whose client has shown no key (unauthenticated) have places of their own, and the oldest goes when
//            they are taken; when all places are taken, the one goes that has been idle for longest, and longer than a
//            header may take. Requests in work never go.
//   refuses  before the body is read, what the handler does not admit; what parsers disagree about (header_check.h),
//            compressed bodies (415), bodies without a length (411).
//   watches  while a handler works, the connection is read on: a client that goes away is noticed at once.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/async/gate.h"
#include "base/async/wake.h"
#include "base/limits.h"
#include "base/rng.h"
#include "services/http/http_message.h"
#include "transport/tcp_socket.h"

namespace runahead {

// One request and its answer: respond() once, or begin_stream(), write()..., end_stream().
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual HttpRequest& request() = 0;
  // The handler has no use for the body any more, and holds no copy of it: its bytes are room for others.
  virtual void body_is_gone() = 0;
  virtual asio::awaitable<void> respond(HttpReply reply) = 0;
  // Status 200 and chunked coding. The bool says whether the client is still there.
  virtual asio::awaitable<bool> begin_stream(std::string content_type) = 0;
  virtual asio::awaitable<bool> write(std::string bytes) = 0;
  virtual asio::awaitable<bool> end_stream() = 0;
  // Cuts the connection without the end of the answer.
  virtual void abort() = 0;
  virtual bool disconnected() const = 0;
  // Called at most once, when the client goes away or stalls; reset it (nullptr) before what it captures dies.
  virtual void on_disconnect(std::function<void()> callback) = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Sees a request before its body is read, and fills in what a router knows. A reply is the answer.
  virtual std::optional<HttpReply> admit(HttpRequest& request) const = 0;
  virtual asio::awaitable<void> handle(Exchange& exchange) const = 0;
};

struct HttpServerOptions {
  HostPort listen{"127.0.0.1", 0};  // port 0: any
  bool allow_remote = false;  // needed to listen beyond loopback, for it has no TLS of its own
  size_t connections_max = limits::kHttpConnectionsMax;
  size_t unauthenticated_max = limits::kHttpUnauthenticatedMax;
  size_t bodies_bytes_max = limits::kHttpBodiesBytesMax;
  size_t answers_bytes_max = limits::kHttpAnswersBytesMax;
  Duration idle_timeout = limits::kHttpIdleTimeout;
  Duration header_timeout = limits::kHttpHeaderTimeout;
  Duration body_timeout = limits::kHttpBodyTimeout;
  Duration body_silence = limits::kHttpBodySilence;
  Duration stall_timeout = limits::kHttpSendTimeout;  // of one write
  bool record_traces = false;  // of requests that are part of no trace yet: somebody takes their spans
  std::function<void(const HttpRequest&, const HttpReply&)> on_error = nullptr;  // an error is the whole answer
};

class HttpConnection;

class HttpServer {
 public:
  // The handler outlives this.
  HttpServer(asio::any_io_executor executor, Clock& clock, const HttpHandler& handler, HttpServerOptions options);
  ~HttpServer();  // after shutdown(), or after the io_context has stopped for good

  Result<void> listen();  // kAddressInUse, kInvalidArgument
  uint16_t port() const { return address_.port; }
  const HostPort& address() const { return address_; }  // with the port that was taken
  bool on_loopback() const { return listener_.on_loopback(); }  // and nowhere else
  // Stops accepting, closes idle connections, lets requests in work end until `drain` has passed, then cuts them.
  asio::awaitable<void> shutdown(Duration drain);
  size_t connections() const { return connections_.size(); }

 private:
  friend class HttpConnection;
  asio::awaitable<void> accept_loop(asio::ip::tcp::acceptor& acceptor);
  asio::awaitable<void> serve(std::shared_ptr<HttpConnection> connection);
  bool make_room();  // for one more connection; false: every place is in work
  void refuse(asio::ip::tcp::socket socket);

  asio::any_io_executor executor_;
  Clock& clock_;
  const HttpHandler& handler_;
  HttpServerOptions options_;
  TcpListener listener_;
  HostPort address_;
  std::set<std::shared_ptr<HttpConnection>> connections_;  // shared with the coroutine that serves it
  Gate gate_;
  Wake connection_ended_;
  size_t body_bytes_ = 0;  // that have come and are still held, of all connections
  size_t answer_bytes_ = 0;  // that are being sent, of all connections
  uint64_t next_request_ = 0;
  std::string request_prefix_;  // makes our request ids unlike those of another process
  SeededRng trace_ids_;
  bool stopping_ = false;
};

}  // namespace runahead
