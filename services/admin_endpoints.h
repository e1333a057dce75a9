// AdminEndpoints: the small HTTP listener of a worker process: /livez, /readyz, /metrics, /version.
//   threads  the io_context thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "services/metrics.h"
#include "transport/tcp_socket.h"

namespace runahead {

class AdminEndpoints {
 public:
  // ready: the worker is registered. What is passed in outlives this.
  AdminEndpoints(asio::any_io_executor executor, Clock& clock, WorkerMetrics& metrics, std::function<bool()> ready);
  ~AdminEndpoints();  // after shutdown(), or after the io_context has stopped for good

  Result<void> listen(HostPort address, bool allow_remote);  // kAddressInUse, kInvalidArgument
  std::string address() const;                               // with the port that was taken
  asio::awaitable<void> shutdown();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace runahead
