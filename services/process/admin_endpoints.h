// AdminEndpoints: the small HTTP listener of a process for probes and scrapers: /livez, /readyz, /health, /metrics,
// /version. It has places of its own, so that no client of the API can take them, and asks for no key: bind it where
// only the cluster's own tools reach it.
//   threads  the io_context thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "transport/tcp_socket.h"

namespace runahead {

class AdminEndpoints {
 public:
  struct Sources {
    std::function<std::vector<std::string>()> reasons_not_ready;  // empty: ready
    std::function<std::string()> metrics;                         // Prometheus' text format
  };
  // What the sources use outlives this.
  AdminEndpoints(asio::any_io_executor executor, Clock& clock, Sources sources);
  ~AdminEndpoints();  // after shutdown(), or after the io_context has stopped for good

  // kAddressInUse, kInvalidArgument. `hosts`: names that clients may call it by on loopback, beside those of loopback.
  Result<void> listen(HostPort address, bool allow_remote, std::vector<std::string> hosts);
  std::string address() const;  // with the port that was taken
  std::vector<std::string> routes() const;  // "GET /livez": some of those that openapi.json describes
  asio::awaitable<void> shutdown();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace runahead
