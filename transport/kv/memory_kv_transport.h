// MemoryKvTransport: pages between workers of one process, by copying. The semantics are those of the others: credit,
// identity, CRC, completion through the executor, one error a stream. For `--in-process` and for tests.
//   threads  all transports of one hub live on one io_context thread.
//   hub      knows the transports by address; test hooks damage or delay pages.
#pragma once

#include <functional>
#include <map>

#include "transport/kv/kv_page_header.h"
#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

class MemoryKvTransport;

class MemoryKvHub {
 public:
  // Tests: called on every page between the sender and the receiver's check; may change both.
  std::function<void(std::span<std::byte, kKvPageHeaderBytes> header, std::span<std::byte> page)> damage;
  // Tests: while true no page moves, as if the peer were frozen.
  bool frozen = false;

 private:
  friend class MemoryKvTransport;
  struct Registry;
  std::shared_ptr<Registry> registry_ = make_registry();
  static std::shared_ptr<Registry> make_registry();
};

class MemoryKvTransport final : public KvTransport {
 public:
  static Result<std::unique_ptr<KvTransport>> create(KvTransportOptions options, asio::any_io_executor executor,
                                                     Clock& clock);
  ~MemoryKvTransport() override;

  std::string name() const override { return "memory"; }
  std::string address() const override;
  Result<void> register_memory(std::span<std::byte> pool) override;
  Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) override;
  Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) override;
  asio::awaitable<void> shutdown() override;

  struct State;

 private:
  explicit MemoryKvTransport(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;  // shared with its streams
};

}  // namespace runahead
