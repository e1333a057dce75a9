// What UcxKvTransport is made of: State, its connections to UCX and to its streams, and UcxConnection. Only
// transport/kv/ucx_*.cc see it.
//   threads  the executor's one thread.
#pragma once

#include <ucp/api/ucp.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <map>
#include <optional>

#include "transport/kv/kv_address.h"
#include "transport/kv/message_streams.h"
#include "transport/kv/ucx_kv_transport.h"
#include "transport/kv/ucx_operation.h"
#include "transport/tcp_socket.h"

namespace runahead {

inline constexpr unsigned kHelloId = 1, kReplyId = 2, kPageId = 3;  // active messages
// A connection that is closed while it is being made gets so long to stand or fail; one takes a few milliseconds.
inline constexpr Duration kWireupTimeout = std::chrono::seconds(1);

class UcxConnection;

struct UcxKvTransport::State : std::enable_shared_from_this<State> {
  State(asio::any_io_executor e, Clock& c, KvTransportOptions o)
      : options(std::move(o)),
        streams(std::make_shared<MessageStreamContext>(e, c, options.connect_timeout, options.transfer_timeout)),
        events(e),
        nudge(e) {}
  ~State();

  Result<void> start();
  Result<void> start_listeners();
  Result<void> start_listener(Tcp::endpoint endpoint, uint16_t port);
  void set_handler(unsigned id, ucp_am_recv_callback_t callback);
  bool has_visitors();
  void wake_soon();
  void kick();  // an operation was posted: progress soon
  Result<std::shared_ptr<UcxConnection>> open_endpoint(ucp_ep_params_t params);
  void on_hello(const std::shared_ptr<UcxConnection>& endpoint, std::span<const std::byte> header);
  // Of those that have named a stream that is not there yet, or none: makes room for another one if they are too many.
  void drop_oldest_greeting(bool named);
  StreamReply match(const std::shared_ptr<UcxConnection>& endpoint, const StreamHello& hello, MessageOutStream& stream);
  void forget(AttemptId attempt, const MessageOutStream& stream);
  void stop();
  void close_ucx();
  template <class Condition>
  void progress_while(const Condition& condition);  // for kWireupTimeout at most; blocks
  static asio::awaitable<void> progress(std::shared_ptr<State> self);
  static asio::awaitable<void> connect(std::shared_ptr<State> self, std::shared_ptr<MessageInStream> stream,
                                       KvAddress sender);
  static Task<std::shared_ptr<UcxConnection>> connect_any(std::shared_ptr<State> self,
                                                          std::vector<Tcp::endpoint> endpoints, Deadline deadline);
  asio::awaitable<bool> stands(std::shared_ptr<UcxConnection> endpoint, Deadline deadline);

  KvTransportOptions options;
  std::shared_ptr<MessageStreamContext> streams;  // shared with the streams
  ucp_context_h context = nullptr;
  ucp_worker_h worker = nullptr;
  std::vector<ucp_listener_h> listeners;  // one for each address of the host, on the same port
  ucp_mem_h memory = nullptr;
  asio::posix::stream_descriptor events;  // UCX's event descriptor; UCX owns it
  KvAddress address;
  std::string lanes;  // of the latest stream
  std::map<ucp_ep_h, std::shared_ptr<UcxConnection>> endpoints;  // shared with the streams
  std::map<AttemptId, std::shared_ptr<MessageOutStream>> outbounds;  // shared with the handles
  size_t num_inbounds = 0;
  uint64_t last_endpoint = 0;
  size_t pending = 0;  // operations that UCX has not called back
  size_t closing = 0;  // endpoints that are to go
  asio::steady_timer nudge;
  bool sleeping = false;  // the progress coroutine waits for `events`
  bool stopping = false;
  Time stopped_at{0};
  uint16_t port = 0;  // of the listener
  bool ended = false;  // no progress any more
};

// One UCX endpoint: of a stream, or of a receiver that has not named its stream yet.
class UcxConnection final : public MessageEndpoint, public std::enable_shared_from_this<UcxConnection> {
 public:
  explicit UcxConnection(UcxKvTransport::State& state)
      : state_(&state), wireup_timer_(state.streams->executor, state.streams->clock, [this] { give_up_wireup(); }) {}

  void send_reply(StreamReply reply) override { send(kReplyId, encode(reply)); }
  void send_layers_open(int32_t count) override { send(kReplyId, encode_layers_open(count)); }
  void send(unsigned id, std::span<const std::byte> header);
  void send_page(const KvOutboundLedger::Page& page, Done done) override;
  void close() override;
  bool is_closing() const override { return closing_; }
  bool is_closed() const override { return closed_; }
  bool is_wired() const { return wired_; }
  void really_close();

  // A receiver's endpoint must name its stream within the connect timeout, and be gone as soon after a refusal.
  void start_wireup_timer() { wireup_timer_.start(state_->options.connect_timeout, shared_from_this()); }
  void stop_wireup_timer() { wireup_timer_.cancel(); }
  // Notes when the connection stands or has failed: until then it must not be torn down (close()).
  void watch_wireup();
  void on_error(ucs_status_t status);
  // The transport is gone, and UCX with it.
  void orphan() { state_ = nullptr, closing_ = closed_ = true, wireup_timer_.cancel(); }

  ucp_ep_h handle = nullptr;
  std::weak_ptr<MessageInStream> in;  // weak: streams hold their endpoint
  std::weak_ptr<MessageOutStream> out;
  std::optional<StreamHello> hello;  // of a receiver whose sender has not opened its end yet
  uint64_t number = 0;  // by age

 private:
  void close_later();
  void set_closed();
  void give_up_wireup();
  void post(void* request, UcxOperation* kept) {
    if (!UCS_PTR_IS_PTR(request)) finish(kept, UCS_PTR_STATUS(request));
    state_->kick();
  }

  UcxKvTransport::State* state_;
  StallTimer wireup_timer_;
  bool wired_ = false;  // the connection stands or has failed
  bool closing_ = false;
  bool leaving_ = false;  // UCX has been told to close it, or is about to be
  bool told_ = false;  // UCX has
  bool closed_ = false;
};

}  // namespace runahead
