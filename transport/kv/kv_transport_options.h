// KvTransportOptions: what every K/V transport is made with.
#pragma once

#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/device_stream.h"
#include "base/limits.h"
#include "transport/host_port.h"

namespace runahead {

class MemoryKvHub;
class TlsIdentity;

struct KvTransportOptions {
  // Tells this process from an earlier one on the same port. Random, not 0; drawn by services.
  uint64_t incarnation = 0;
  HostPort listen{"127.0.0.1", 0};        // tcp, ucx, nccl; port 0 takes a free one
  std::optional<HostPort> advertise;      // tcp, ucx, nccl: what peers connect to; none: where it listens
  std::shared_ptr<TlsIdentity> identity;  // tcp; ucx and nccl for what they say beside the pages; none: plain
  bool authenticate_pages = false;  // ucx: needs an identity. Over tcp TLS does so; nccl and ipc cannot
  bool allow_remote = false;  // tcp, ucx, nccl: needed to listen beyond loopback without an identity
  std::shared_ptr<MemoryKvHub> hub;  // memory: shared by all transports of the process
  DeviceAccess device;                    // nccl, ipc: the GPU whose pages travel; empty: none
  Duration connect_timeout = limits::kConnectTimeout;
  Duration transfer_timeout = limits::kPageTransferTimeout;

  bool may_be_remote() const { return allow_remote || identity; }
  // `port`: the one that is listened on.
  HostPort advertised(uint16_t port) const {
    HostPort place = advertise.value_or(listen);
    if (!advertise || place.port == 0) place.port = port;
    return place;
  }
};

}  // namespace runahead
