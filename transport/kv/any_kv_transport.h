// AnyKvTransport: several transports behind one. A worker cannot know what its peers can: each tells all that it has, and
// both ends of a stream take the first that both have. So processes on unlike machines are one cluster, whichever starts
// first; tcp is always among them.
//   address  those of all members, with a space between.
//   owner    its members. threads, limits: theirs.
#pragma once

#include "transport/kv/kv_transport.h"

namespace runahead {

class AnyKvTransport final : public KvTransport {
 public:
  // The preferred one first, in the same order everywhere; at least one.
  explicit AnyKvTransport(std::vector<std::unique_ptr<KvTransport>> members) : members_(std::move(members)) {}

  std::string name() const override { return "auto"; }
  std::string describe() const override;
  std::string address() const override;
  void advertise(const std::string& host) override;
  Result<void> register_memory(std::span<std::byte> pool) override;
  Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) override;
  Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) override;
  asio::awaitable<void> shutdown() override;

 private:
  // Picks the member and leaves only its own address of the peer.
  Result<KvTransport*> pick(std::string& peer_address);

  std::vector<std::unique_ptr<KvTransport>> members_;
};

}  // namespace runahead
