// HopKvTransport: KV pages by hops: two workers have one TCP connection and one lane for all their streams (kv_hop.h). A HopWay
// says what the lanes are: UCX (ucx_kv_transport.h), NCCL or CUDA IPC (device_kv_transport.h).
//   hop      the receiver connects to the sender's listener, once for all streams between the two; the sender makes the lane when
//            the first stream is met. Then the sender announces each page on the connection and hands it to the lane, and the
//            receiver, which has posted its buffer before, does likewise in the order of the announcements.
//   failure  a peer that is lost, or a page that makes no progress, ends the hop with all its streams and aborts the lane; the
//            next stream makes new ones. So a frozen worker costs its neighbours the attempts that go through it, no more.
//   threads  the process's io_context thread.
//   limits   kKvStreamsMax streams; kKvGreetingsMax hops on which no stream has met its sender.
#pragma once

#include "transport/kv/hop_lane.h"
#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

struct HopWay {
  std::string label;  // of metrics: "ucx"
  std::string name;  // in addresses, where unlike ones do not meet: "ucx-1.13"
  bool has_ipv6 = true;  // a worker at an IPv6 address is reached by it
  std::function<std::string(const std::string& place)> describe;  // for people
  std::function<Result<void>(std::span<std::byte> pool)> register_memory;
  MakeLane make_lane;
};

class HopKvTransport final : public KvTransport {
 public:
  static Result<std::unique_ptr<KvTransport>> create(HopWay way, KvTransportOptions options,
                                                     asio::any_io_executor executor, Clock& clock);
  ~HopKvTransport() override;

  std::string name() const override;
  std::string describe() const override;
  std::string address() const override;  // "ucx-1.13://host:port#incarnation"; empty where the way does not reach it
  void advertise(const std::string& host) override;
  Result<void> register_memory(std::span<std::byte> pool) override;
  Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) override;
  Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) override;
  asio::awaitable<void> shutdown() override;

  struct State;

 private:
  explicit HopKvTransport(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;  // shared with its coroutines
};

}  // namespace runahead
