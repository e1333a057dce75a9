// MessageInStream, MessageOutStream: the two ends of one KV stream over a transport that moves messages
// (transport/kv/hop_kv_transport.h), without its types. Each is shared by its handle, its endpoint and the transfers under way;
// the pin is released when all have ended.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "base/async/stall_timer.h"
#include "transport/kv/kv_ledger.h"
#include "transport/kv/page_authenticator.h"

namespace runahead {

// What all streams of one transport share.
struct MessageStreamContext {
  MessageStreamContext(asio::any_io_executor e, Clock& c, Duration connect, Duration transfer)
      : executor(e), clock(c), connect_timeout(connect), transfer_timeout(transfer), changed(e, c) {}

  asio::any_io_executor executor;
  Clock& clock;
  Duration connect_timeout;
  Duration transfer_timeout;
  bool authenticate_pages = false;  // both ends must
  Wake changed;  // an endpoint has closed or a transfer has ended
};

// What a stream needs of its transport: one peer.
class MessageEndpoint {
 public:
  // error: nullptr, the transfer has succeeded. crc32c: of what has come, where the transport takes it itself.
  using Done = std::function<void(const char* error, std::optional<uint32_t> crc32c)>;

  virtual ~MessageEndpoint() = default;
  virtual void send_reply(StreamReply reply) = 0;
  virtual void send_layers_open(int32_t count) = 0;
  // The page is read until `done` is called; that may be before this returns.
  virtual void send_page(const KvOutboundLedger::Page& page, Done done) = 0;
  // Ends both ends' transfers with an error; is_closed() once nothing of this end is read or written any more.
  virtual void close() = 0;
  virtual bool is_closing() const = 0;
  virtual bool is_closed() const = 0;
};

// The data of a page that has been announced; calls the Done once they are in the buffer, perhaps before it returns.
using PageFetch = std::function<void(std::span<std::byte> buffer, MessageEndpoint::Done done)>;

class MessageInStream : public std::enable_shared_from_this<MessageInStream> {
 public:
  MessageInStream(std::shared_ptr<MessageStreamContext> context, KvInboundParams params);

  KvInboundLedger& ledger() { return ledger_; }
  void open_layers(int32_t count);
  void start();  // waits for the sender's answer
  StreamHello hello(uint64_t incarnation);  // to be sent
  void attach(std::shared_ptr<MessageEndpoint> endpoint);  // the way to the sender; the hello is on its way
  void abandon();
  asio::awaitable<void> close();

  // From the endpoint:
  void on_reply(std::span<const std::byte> reply);
  void on_page(std::span<const std::byte> wire, size_t length, const PageFetch& fetch);
  void on_lost(const char* why);
  void stop(Error why);

 private:
  void received(const KvPageHeader& header, const char* error, std::optional<uint32_t> crc32c);
  void corrupt(Error why);

  std::shared_ptr<MessageStreamContext> context_;
  KvInboundLedger ledger_;
  std::shared_ptr<MessageEndpoint> endpoint_;
  StallTimer stall_;  // until the sender has answered, then while a page is under way
  int32_t told_layers_ = 0;  // that are open
  std::optional<PageAuthenticator> authenticator_;
  bool met_ = false;
  int receiving_ = 0;
  bool closed_ = false;
};

class MessageOutStream : public std::enable_shared_from_this<MessageOutStream> {
 public:
  MessageOutStream(std::shared_ptr<MessageStreamContext> context, KvOutboundParams params);

  KvOutboundLedger& ledger() { return ledger_; }
  void start();  // waits for the receiver
  // The receiver has come. kOk keeps the endpoint; every other reply is to be sent to whoever it is.
  StreamReply attach(const StreamHello& hello, std::shared_ptr<MessageEndpoint> endpoint);
  void post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c);
  void abandon();
  asio::awaitable<void> close();

  // From the endpoint:
  void on_reply(std::span<const std::byte> reply);
  void on_lost(const char* why);
  void stop(Error why);

 private:
  void pump();  // hands pages to the transport while there is room
  void sent(const KvOutboundLedger::Page& page, const char* error);

  std::shared_ptr<MessageStreamContext> context_;
  KvOutboundLedger ledger_;
  std::shared_ptr<MessageEndpoint> endpoint_;
  StallTimer stall_;  // until the receiver has come, then while a page is under way
  std::optional<PageAuthenticator> authenticator_;
  int sending_ = 0;
  bool closed_ = false;
};

}  // namespace runahead
