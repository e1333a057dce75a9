// KV pages over UCX, by hops (hop_kv_transport.h, ucx_lane.h). Built only where UCX is installed; its headers are included in
// ucx_* alone.
//   settings  the user's UCX_* variables win over ours.
//   IPv6      UCX 1.13's TCP uses IPv4 addresses only, so a worker at an IPv6 address offers none of this transport.
//   threads   the executor's one; to open UCX, and a hop's end of it, takes a few milliseconds there.
#pragma once

#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

// kUnavailable when UCX does not start here.
Result<std::unique_ptr<KvTransport>> make_ucx_kv_transport(KvTransportOptions options, asio::any_io_executor executor,
                                                           Clock& clock);

}  // namespace runahead
