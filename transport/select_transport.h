// make_kv_transport: the one place that knows which transports exist. Called once per worker by services and tests.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "transport/kv_transport.h"

namespace runahead {

class MemoryKvHub;

struct KvTransportOptions {
  // Tells this process from an earlier one on the same port. Random, not 0; drawn by services.
  uint64_t incarnation = 0;
  std::string listen_host = "127.0.0.1";  // tcp
  uint16_t listen_port = 0;               // tcp; 0 takes a free one
  std::string advertise_host;             // tcp: the name that peers reach this one by; empty: listen_host
  bool allow_remote = false;              // tcp: needed to listen beyond loopback, for there is no TLS yet
  std::shared_ptr<MemoryKvHub> hub;       // memory: shared by all transports of the process
  Duration connect_timeout = limits::kConnectTimeout;
  Duration transfer_timeout = limits::kPageTransferTimeout;
};

// name: "memory", "tcp", "ucx", or "auto" (ucx where it was built in and starts, else tcp). kInvalidArgument for
// another name, kUnsupported for one that this build lacks, kAddressInUse, ...
Result<std::unique_ptr<KvTransport>> make_kv_transport(std::string_view name, KvTransportOptions options,
                                                       asio::any_io_executor executor, const Clock& clock);

}  // namespace runahead
