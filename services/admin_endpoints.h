// AdminEndpoints: the small HTTP listener of a worker process: /livez, /readyz, /metrics, /version.
//   threads  the io_context thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"

namespace runahead {

struct AdminOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;                                          // 0: any
  std::string version, revision;
  std::function<std::vector<std::string>()> not_ready_reasons;  // empty: ready
  std::function<std::string()> metrics_text;
};

class AdminEndpoints {
 public:
  AdminEndpoints(asio::any_io_executor executor, Clock& clock, AdminOptions options);
  ~AdminEndpoints();  // after shutdown(), or after the io_context has stopped for good

  Result<void> listen();  // kAddressInUse
  uint16_t port() const;
  asio::awaitable<void> shutdown();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace runahead
