// Opens UCX with the settings that we need, unless the user's environment says otherwise. Private to the UCX transport.
#pragma once

#include <ucp/api/ucp.h>

#include <string>

#include "base/result.h"

namespace runahead {

// The caller owns it (ucp_cleanup). allow_remote: else UCX sees the loopback device only. kUnavailable with what to set.
Result<ucp_context_h> open_ucx_context(bool allow_remote);

// "posix/memory cma/memory": what UCX says of an endpoint, cut to its lanes.
std::string lanes_of(ucp_ep_h endpoint);

// "ucx-1.13": what peers must have too, for versions of UCX refuse each other (reference/measured.md 1).
std::string ucx_transport_name();

Error ucx_error(ErrorCode code, const std::string& what, ucs_status_t status);

}  // namespace runahead
