// KvHop: the connection of two workers: frames over TCP (hop_frame.h), one lane for the pages (hop_lane.h), and the streams on
// both. KvHopEndpoint is one stream's way to its peer. Private to HopKvTransport.
//   direction one end sends pages, the other receives them and has connected. Pages both ways are two hops.
//   life      until the connection, the lane or a page's deadline fails: then every stream on it fails, the lane is aborted and
//             never used again, and the next stream makes a new hop. Hops stay for the streams to come.
//   stream    one that ends in the midst disturbs no other: pages that are on their way come, to nobody.
//   threads   the executor's only.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "transport/kv/hop_frame.h"
#include "transport/kv/hop_lane.h"
#include "transport/kv/message_streams.h"
#include "transport/tls/peer_socket.h"

namespace runahead {

class KvHop;

class KvHopEndpoint final : public MessageEndpoint, public std::enable_shared_from_this<KvHopEndpoint> {
 public:
  KvHopEndpoint(std::shared_ptr<KvHop> hop, uint32_t number) : hop_(std::move(hop)), number_(number) {}

  void send_reply(StreamReply reply) override;
  void send_layers_open(int32_t count) override;
  void send_page(const KvOutboundLedger::Page& page, Done done) override;
  void close() override;
  bool is_closing() const override { return closing_; }
  bool is_closed() const override { return closing_ && under_way_ == 0; }

  // From the hop:
  void on_reply(std::span<const std::byte> reply);
  void on_lost(const Error& why);
  void receive(std::span<std::byte> buffer, uint64_t at, Done done);

  std::weak_ptr<MessageInStream> in;  // weak: streams hold their endpoint
  std::weak_ptr<MessageOutStream> out;

 private:
  Done counted(Done done);  // under way until it is called
  void leave();

  std::shared_ptr<KvHop> hop_;
  uint32_t number_;
  int under_way_ = 0;
  bool closing_ = false;
};

// What all hops of a transport share.
struct KvHopContext {
  std::shared_ptr<MessageStreamContext> streams;
  MakeLane make_lane;
  std::shared_ptr<TlsIdentity> identity;  // none: plain
  Duration transfer_timeout;  // without progress on a page, once the lane stands; that of `streams` is longer
  // Of a sender: a receiver has said which stream it wants.
  std::function<void(const std::shared_ptr<KvHopEndpoint>&, const StreamHello&)> on_hello;
};

class KvHop : public std::enable_shared_from_this<KvHop> {
 public:
  ~KvHop() { end_lane(); }
  // The receiving end: connects.
  static std::shared_ptr<KvHop> connect(std::shared_ptr<KvHopContext> context, HostPort sender);
  // The sending end, of a receiver that has connected.
  static std::shared_ptr<KvHop> accept(std::shared_ptr<KvHopContext> context, Tcp::socket socket);

  // Of the receiving end: a new stream.
  void open(const std::shared_ptr<MessageInStream>& stream, uint64_t sender_incarnation);
  void fail(Error why);
  // Its transport is gone without shutdown(), and perhaps the loop, with everything that could end in order: no page is touched
  // any more when this returns.
  void orphan();
  bool has_failed() const { return error_.has_value(); }
  // Of the sending end: nobody has got a stream on it yet.
  bool is_stranger() const { return sends_ && !lane_ && !error_; }
  size_t num_endpoints() const { return endpoints_.size(); }
  bool has_ended() const { return coroutines_ == 0; }  // nothing of it runs any more

  // From its endpoints:
  void write(HopFrameKind kind, uint32_t stream, std::span<const std::byte> body, uint64_t at = 0);
  void start_lane();  // of the sending end, when the first stream has met its receiver
  void when_met(std::function<void()> call);  // the peer knows the lane, or the hop has failed
  HopLane* lane() { return lane_.get(); }
  void send(uint32_t stream, const KvPageHeader& header, std::span<const std::byte> page, HopLane::Done done);
  void begin_transfer();
  void end_transfer();
  void forget(uint32_t number);
  MessageStreamContext& streams() { return *context_->streams; }

 private:
  KvHop(std::shared_ptr<KvHopContext> context, asio::any_io_executor executor);
  void spawn(asio::awaitable<void> work);
  static asio::awaitable<void> run(std::shared_ptr<KvHop> self, std::optional<HostPort> sender);
  Task<void> greet(std::optional<HostPort> sender);
  Task<void> read_frames();
  static asio::awaitable<void> write_frames(std::shared_ptr<KvHop> self);
  struct LaneEnd;
  static asio::awaitable<void> serve_lane(std::shared_ptr<KvHop> self);
  void run_lane(const LaneIntroduction* of_sender);
  void end_lane();
  Result<void> on_frame(const HopFrame& frame);
  Result<void> on_open(const HopFrame& frame);
  Result<void> on_page(const HopFrame& frame);
  Result<void> on_introduction(const HopFrame& frame);
  Result<void> on_taken(uint64_t number);
  void introduce(const LaneIntroduction& introduction);
  void meet();

  std::shared_ptr<KvHopContext> context_;
  PeerSocket socket_;
  StallTimer greeting_;  // until both ends have said what they are
  StallTimer stall_;  // while a page is under way
  int transfers_ = 0;
  std::map<uint32_t, std::shared_ptr<KvHopEndpoint>> endpoints_;  // shared with the streams
  bool sends_ = false;  // pages; else it receives them, and has connected
  uint32_t last_stream_ = 0;  // of the receiving end: the newest that it has opened
  size_t page_bytes_ = 0;  // likewise: of the streams so far
  uint32_t last_opened_ = 0;  // of the sending end: the newest that the peer has
  std::deque<std::array<std::byte, kHopFrameBytes>> frames_;  // to be written
  Wake written_;  // there are frames, or the hop has failed
  std::unique_ptr<HopLane> lane_;
  LaneIntroduction introduction_;  // the peer's, as far as it has come
  bool introduced_ = false;  // all of it has
  uint64_t announced_ = 0;  // pages, by either end
  std::map<uint64_t, HopLane::Done> offered_;  // of a pulled lane, by number: not taken yet
  bool met_ = false;
  std::vector<std::function<void()>> waiting_;  // until met
  std::optional<Error> error_;
  int coroutines_ = 0;
};

}  // namespace runahead
