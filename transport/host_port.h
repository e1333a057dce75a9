// HostPort: what people write for an address, and what they read. "*:port" is every address of this machine,
// of both families; "0.0.0.0" and "::" mean what they mean to the kernel, where "::" takes IPv4 too.
//   pure     no look-up, no socket.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace runahead {

struct HostPort {
  std::string host;  // name or literal, without brackets; "*": every address
  uint16_t port = 0;
};

// "host:port", "[v6]:port" or "*:port"; kInvalidArgument.
Result<HostPort> parse_host_port(std::string_view text);
// The same for what is connected to: no wildcard, no port 0.
Result<HostPort> parse_destination(std::string_view text);
std::string to_string(const HostPort& address);

// "*" and the unspecified address in any spelling: one can listen there; to connect there means this machine.
bool is_wildcard(std::string_view host);
// A literal of 127.0.0.0/8 or ::1, or "localhost".
bool is_loopback(std::string_view host);

// What --advertise may say: a name or literal (an IPv6 one with or without brackets), with or without a port; without one
// it is `port`. kInvalidArgument for a wildcard: nobody can connect to one.
Result<HostPort> parse_advertised(std::string_view text, uint16_t port);

// How peers reach a listener on the wildcard `listen_host`: by `local`, the address of this end of the connection to the
// coordinator. kInvalidConfig with what to do where `local` is of no use to peers, or not listened on.
Result<std::string> advertised_by(std::string_view listen_host, std::string_view local);

}  // namespace runahead
