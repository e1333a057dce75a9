// TcpKvTransport: KV pages over TCP with Asio; the portable transport. One connection a stream, opened by the receiver:
// it connects to the sender's listener and says which stream it wants and that its buffers are posted (StreamHello), so
// credit is the connection itself. The sender writes header and page straight from page memory, the receiver reads
// straight into the posted buffer, and hashes while it reads. Last the receiver confirms. Bytes: docs/wire.md.
//   threads  the process's io_context thread. Reads and writes are cut into steps of at most 1 MiB, so that streams
//            share the thread fairly and one stream's wait is nobody else's.
//   owner    each stream's state is shared by its handle and its coroutines, and holds the pin until all have ended.
//   limits   kKvStreamsMax streams, kKvGreetingsMax connections that have not found theirs.
#pragma once

#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

class TcpKvTransport final : public KvTransport {
 public:
  static Result<std::unique_ptr<KvTransport>> create(KvTransportOptions options, asio::any_io_executor executor,
                                                     Clock& clock);
  ~TcpKvTransport() override;

  std::string name() const override { return "tcp"; }
  std::string describe() const override;
  std::string address() const override;  // "tcp://host:port#incarnation"
  void advertise(const std::string& host) override;
  Result<void> register_memory(std::span<std::byte> pool) override;
  Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) override;
  Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) override;
  asio::awaitable<void> shutdown() override;

  struct State;

 private:
  explicit TcpKvTransport(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;  // shared with the accepting coroutines
};

}  // namespace runahead
