// Opens UCX with the settings that we need, unless the user's environment says otherwise. Private to the UCX transport.
#pragma once

#include <ucp/api/ucp.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace runahead {

// The caller owns it (ucp_cleanup). allow_remote: else UCX sees the loopback device only. kUnavailable with what to set.
Result<ucp_context_h> open_ucx_context(bool allow_remote);

// "posix/memory cma/memory": what UCX says of an endpoint, cut to its lanes.
std::string lanes_of(ucp_ep_h endpoint);

// This process's sockets on a local TCP port. UCX tells neither its listener's nor those of connections that it has taken
// up and not announced yet.
struct PortSockets {
  std::vector<int> listeners, connections;
};
PortSockets sockets_of_port(uint16_t port);
// Those who knock from now on get no answer until the socket is closed.
void ignore_new_connections(int listener);
// "ucx-1.13": what peers must have too, for versions of UCX refuse each other (docs/operations.md).
std::string ucx_transport_name();

Error ucx_error(ErrorCode code, const std::string& what, ucs_status_t status);

}  // namespace runahead
