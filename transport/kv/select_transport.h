// The table of the K/V transports, and make_kv_transport, which makes one by its name: once per worker, by services and
// tests. Nothing else knows which there are.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

struct KvTransportKind {
  using Create = Result<std::unique_ptr<KvTransport>> (*)(KvTransportOptions, asio::any_io_executor, Clock&);

  std::string_view name;  // KvTransport::name(), and how its addresses begin
  bool between_processes;  // memory is not
  bool of_devices;  // moves a GPU's pages, which no other one can have: nothing that `auto` takes
  bool has_one_port;  // the data port: where that is fixed, a firewall or a policy expects no other
  Create create;  // null: this build lacks it
  std::string_view built_with;  // the Debian package that the build needs for it
};

// The preferred one first: `auto` is those between processes, in this order.
std::span<const KvTransportKind> kv_transports();

// Does the transport of this name, or "auto", move a device's pages?
bool moves_device_pages(std::string_view name);

// What people may choose for a cluster of processes, beside each other: auto, and those between processes.
std::vector<std::string> kv_transport_choices();

// name: of a kind, or "auto": all between processes of the host's pages that this build has, that start, and that keep to a fixed
// data port;
// each stream goes over the first that both its ends have (transport/kv/any_kv_transport.h). kInvalidArgument for another
// name, kUnsupported for one that this build lacks, kAddressInUse, ...
Result<std::unique_ptr<KvTransport>> make_kv_transport(std::string_view name, KvTransportOptions options,
                                                       asio::any_io_executor executor, Clock& clock);

}  // namespace runahead
