// TcpInStream, TcpOutStream: the two ends of one KV stream over one TCP connection (transport/kv/tcp_kv_transport.h).
// Each is shared by its handle and its coroutines; the pin is released when the last coroutine has ended.
#pragma once

#include <memory>

#include "base/async/stall_timer.h"
#include "transport/kv/kv_address.h"
#include "transport/kv/kv_ledger.h"
#include "transport/tls/peer_socket.h"

namespace runahead {

struct TcpKvTimeouts {
  Duration connect;   // until the two ends have met
  Duration transfer;  // without progress on a page under way
};

class TcpInStream : public std::enable_shared_from_this<TcpInStream> {
 public:
  static std::shared_ptr<TcpInStream> start(asio::any_io_executor executor, Clock& clock, TcpKvTimeouts timeouts,
                                            std::shared_ptr<TlsIdentity> identity, KvAddress sender,
                                            KvInboundParams params);

  KvInboundLedger& ledger() { return ledger_; }
  void open_layers(int32_t count);
  void abandon();                 // ends soon
  asio::awaitable<void> close();  // returns when it has ended

 private:
  TcpInStream(asio::any_io_executor executor, Clock& clock, TcpKvTimeouts timeouts,
              std::shared_ptr<TlsIdentity> identity, KvAddress sender, KvInboundParams params);
  static asio::awaitable<void> run(std::shared_ptr<TcpInStream> self);
  Task<void> meet_sender();
  Task<void> greet(int32_t layers_open);
  Task<void> receive_pages();
  Task<uint32_t> read_page(std::span<std::byte> page);  // its CRC32C
  static asio::awaitable<void> tell_layers(std::shared_ptr<TcpInStream> self);
  void stop(Error why);

  asio::any_io_executor executor_;
  Clock& clock_;
  TcpKvTimeouts timeouts_;
  std::shared_ptr<TlsIdentity> identity_;
  KvAddress sender_;
  KvInboundLedger ledger_;
  PeerSocket socket_;
  StallTimer stall_;
  bool met_ = false;  // the sender has the hello
  int32_t told_layers_ = 0;  // that are open
  bool telling_ = false;
  bool running_ = true;
  bool closed_ = false;
  Wake ended_;
};

class TcpOutStream : public std::enable_shared_from_this<TcpOutStream> {
 public:
  static std::shared_ptr<TcpOutStream> start(asio::any_io_executor executor, Clock& clock, TcpKvTimeouts timeouts,
                                             KvOutboundParams params);

  KvOutboundLedger& ledger() { return ledger_; }
  void post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c) {
    ledger_.post(key, page, crc32c);
  }
  // The receiver has come. kOk takes the socket; every other reply is to be sent to whoever it is.
  StreamReply attach(const StreamHello& hello, PeerSocket& socket);
  void abandon();
  asio::awaitable<void> close();

 private:
  TcpOutStream(asio::any_io_executor executor, Clock& clock, TcpKvTimeouts timeouts, KvOutboundParams params);
  void spawn(asio::awaitable<void> work);
  static asio::awaitable<void> expect_receiver(std::shared_ptr<TcpOutStream> self);
  static asio::awaitable<void> write_pages(std::shared_ptr<TcpOutStream> self);
  static asio::awaitable<void> read_replies(std::shared_ptr<TcpOutStream> self);
  asio::awaitable<bool> write_page(KvPageHeader header, std::span<const std::byte> page);
  void stop(Error why);

  asio::any_io_executor executor_;
  Clock& clock_;
  TcpKvTimeouts timeouts_;
  KvOutboundLedger ledger_;
  PeerSocket socket_;
  StallTimer stall_;
  bool attached_ = false;
  bool closed_ = false;
  int coroutines_ = 0;
  Wake ended_;
};

}  // namespace runahead
