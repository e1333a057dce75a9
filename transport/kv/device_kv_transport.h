// DeviceKvTransport: KV pages from GPU to GPU. Pages are memory of the GPU, which its engine computes on; nothing of them is on
// the host. Two ways: nccl, over NVLink, PCIe or RDMA as NCCL finds it, between workers with a GPU each; ipc (CUDA IPC), between
// workers that share a GPU, which NCCL refuses.
//   hop      the receiver connects by TCP to the sender's listener, once for all streams between the two; the sender makes the
//            lane when the first stream is met. Then the sender announces each page over TCP and hands it to the lane, and the
//            receiver, which has posted its buffer before, does likewise in the order of the announcements (device_hop.h).
//   check    CRC32C is taken on the device, by the sender before it announces a page and by the receiver behind it.
//   failure  a peer that is lost, or a page that makes no progress, ends the hop with all its streams and aborts the lane; the
//            next stream makes new ones. So a frozen worker costs its neighbours the attempts that go through it, no more.
//   threads  the process's io_context thread; calls of NCCL and the driver are on a thread of each hop (device_lane.h).
//   limits   kKvStreamsMax streams; kKvGreetingsMax hops on which no stream has met its sender.
#pragma once

#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

class DeviceKvTransport final : public KvTransport {
 public:
  // kUnavailable without NCCL's library, kUnsupported without a device.
  static Result<std::unique_ptr<KvTransport>> create_nccl(KvTransportOptions options, asio::any_io_executor executor,
                                                          Clock& clock);
  static Result<std::unique_ptr<KvTransport>> create_ipc(KvTransportOptions options, asio::any_io_executor executor,
                                                         Clock& clock);
  ~DeviceKvTransport() override;

  std::string name() const override;
  std::string describe() const override;
  std::string address() const override;  // "nccl://host:port#incarnation", or "ipc://..."
  void advertise(const std::string& host) override;
  Result<void> register_memory(std::span<std::byte> pool) override;
  Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) override;
  Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) override;
  asio::awaitable<void> shutdown() override;

  struct State;

 private:
  explicit DeviceKvTransport(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;  // shared with its coroutines
};

}  // namespace runahead
