// UcxKvTransport: KV pages over UCX: shared memory, TCP or RDMA, as UCX_TLS and the machine allow. Built only where UCX
// is installed; its headers are included in ucx_kv_transport.cc alone.
//   meeting   one endpoint a stream, opened by the receiver through UCX's listener, so both ends own an endpoint with
//             error handling, and closing a stream ends its transfers and nobody else's. Hello and replies as over TCP.
//   page      one active message: KvPageHeader is its header, the page its data, always by rendezvous: the receiver
//             sees the header, finds the posted buffer, and only then is the data fetched into it. Nobody but the receiver's
//             own worker ever writes its memory (get, never put), so a peer that wakes late can do no harm.
//   progress  on the process's io_context thread, driven by UCX's event descriptor; never a spin.
//   failure   UCX tells of a killed peer (keep-alive 1 s; error handling of shared memory switched on); a frozen one is
//             found by our own timeout. close() returns when every transfer has ended; a page that UCX does not give
//             back keeps its pin (quarantine). What UCX 1.13 does: docs/operations.md.
//   settings  the user's UCX_* variables win over ours.
#pragma once

#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

class UcxKvTransport final : public KvTransport {
 public:
  // kUnavailable when UCX does not start or the chosen UCX_TLS has no lane with error handling.
  static Result<std::unique_ptr<KvTransport>> create(KvTransportOptions options, asio::any_io_executor executor,
                                                     Clock& clock);
  ~UcxKvTransport() override;

  std::string name() const override { return "ucx"; }
  std::string describe() const override;  // the lanes of the latest stream
  std::string address() const override;  // "ucx-<version>://host:port#incarnation" of the listener; empty for IPv6
  void advertise(const std::string& host) override;
  Result<void> register_memory(std::span<std::byte> pool) override;
  Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) override;
  Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) override;
  asio::awaitable<void> shutdown() override;

  struct State;

 private:
  explicit UcxKvTransport(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;  // shared with the streams and the progress coroutine
};

}  // namespace runahead
