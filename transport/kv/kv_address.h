// What can be seen of KvTransport::address() without its transport.
#pragma once

#include <string>
#include <string_view>

namespace runahead {

// Is it an address of loopback, which means another machine to each who reads it?
bool leads_to_own_machine(std::string_view kv_address);

// The part of `theirs` by which an end with the address `own` takes pages from it or gives it some: that of the first
// transport of `own` that both have. Empty if there is none. Both addresses list their transports in the same order.
std::string_view part_in_common(std::string_view own, std::string_view theirs);
// Its transport for people: "tcp", "ucx".
std::string transport_in_common(std::string_view own, std::string_view theirs);

}  // namespace runahead
