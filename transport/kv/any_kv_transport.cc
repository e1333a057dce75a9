#include "transport/kv/any_kv_transport.h"

#include <utility>

#include "transport/kv/kv_address.h"

namespace runahead {
std::string AnyKvTransport::describe() const {
  std::string all;
  for (const auto& member : members_) all += (all.empty() ? "" : ", or ") + member->describe();
  return all;
}

std::string AnyKvTransport::address() const {
  std::string all;
  for (const auto& member : members_) {
    const std::string own = member->address();
    if (!all.empty() && !own.empty()) all += kBetweenKvAddresses;
    all += own;
  }
  return all;
}

void AnyKvTransport::advertise(const std::string& host) {
  for (const auto& member : members_) member->advertise(host);
}

Result<void> AnyKvTransport::register_memory(std::span<std::byte> pool) {
  for (const auto& member : members_) TRY(member->register_memory(pool));
  return {};
}

Result<KvTransport*> AnyKvTransport::pick(std::string& peer_address) {
  const std::string theirs(part_in_common(address(), peer_address));
  for (const auto& member : members_) {
    if (theirs.empty() || kv_transport_of(member->address()) != kv_transport_of(theirs)) continue;
    peer_address = theirs;
    return member.get();
  }
  return fail(ErrorCode::kInvalidArgument, "no K/V transport in common: the peer is at " + peer_address.substr(0, 300) +
                                               ", this worker at " + address());
}

Result<std::unique_ptr<KvInbound>> AnyKvTransport::open_inbound(KvInboundParams params) {
  KvTransport* member = TRY(pick(params.sender_address));
  return member->open_inbound(std::move(params));
}

Result<std::unique_ptr<KvOutbound>> AnyKvTransport::open_outbound(KvOutboundParams params) {
  KvTransport* member = TRY(pick(params.receiver_address));
  return member->open_outbound(std::move(params));
}

asio::awaitable<void> AnyKvTransport::shutdown() {
  for (const auto& member : members_) co_await member->shutdown();
}

}  // namespace runahead
