// make_kv_transport: the one place that knows which transports exist. Called once per worker by services and tests.
#pragma once

#include <memory>
#include <string_view>

#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

// name: "memory", "tcp", "ucx", or "auto": tcp, and ucx too where it was built in, starts, and may choose its ports (listen
// port 0); each stream goes over the first that both its ends have (transport/kv/any_kv_transport.h). kInvalidArgument for
// another name, kUnsupported for one that this build lacks, kAddressInUse, ...
Result<std::unique_ptr<KvTransport>> make_kv_transport(std::string_view name, KvTransportOptions options,
                                                       asio::any_io_executor executor, const Clock& clock);

}  // namespace runahead
