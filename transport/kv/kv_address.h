// KvTransport::address(), and what can be seen of it without its transport.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "transport/host_port.h"

namespace runahead {

// Where a sender listens, and which process it must be: "tcp://host:port#incarnation", the incarnation in hexadecimal.
struct KvAddress {
  HostPort place;
  uint64_t incarnation = 0;
  std::string transport = "tcp";
};
std::string to_string(const KvAddress& address);
// Of one transport: kInvalidArgument for another's.
Result<KvAddress> parse_kv_address(std::string_view text, std::string_view transport = "tcp");

// Is it an address of loopback, which means another machine to each who reads it?
bool leads_to_own_machine(std::string_view kv_address);

// The part of `theirs` by which an end with the address `own` takes pages from it or gives it some: that of the first
// transport of `own` that both have. Empty if there is none. Both addresses list their transports in the same order.
std::string_view part_in_common(std::string_view own, std::string_view theirs);
// Its transport for people: "tcp", "ucx".
std::string transport_in_common(std::string_view own, std::string_view theirs);

}  // namespace runahead
