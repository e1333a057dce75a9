// make_kv_transport: the one place that knows which transports exist. Called once per worker by services and tests.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "transport/host_port.h"
#include "transport/kv/kv_transport.h"

namespace runahead {

class MemoryKvHub;

struct KvTransportOptions {
  // Tells this process from an earlier one on the same port. Random, not 0; drawn by services.
  uint64_t incarnation = 0;
  HostPort listen{"127.0.0.1", 0};        // tcp, ucx; port 0 takes a free one
  std::optional<HostPort> advertise;      // tcp, ucx: what peers connect to; none: where it listens
  bool allow_remote = false;              // tcp, ucx: needed to listen beyond loopback, for there is no TLS yet
  std::shared_ptr<MemoryKvHub> hub;       // memory: shared by all transports of the process
  Duration connect_timeout = limits::kConnectTimeout;
  Duration transfer_timeout = limits::kPageTransferTimeout;

  // `port`: the one that is listened on.
  HostPort advertised(uint16_t port) const {
    HostPort place = advertise.value_or(listen);
    if (!advertise || place.port == 0) place.port = port;
    return place;
  }
};

// name: "memory", "tcp", "ucx", or "auto": tcp, and ucx too where it was built in, starts, and may choose its ports (listen
// port 0); each stream goes over the first that both its ends have (transport/kv/any_kv_transport.h). kInvalidArgument for
// another name, kUnsupported for one that this build lacks, kAddressInUse, ...
Result<std::unique_ptr<KvTransport>> make_kv_transport(std::string_view name, KvTransportOptions options,
                                                       asio::any_io_executor executor, const Clock& clock);

}  // namespace runahead
