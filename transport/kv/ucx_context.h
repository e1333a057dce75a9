// UcxContext: UCX opened with the settings that we need, unless the user's environment says otherwise, and the page pool
// registered with it. Shared by the transport and its lanes. Private to the UCX transport.
//   threads  the executor's one.
#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace runahead {

class UcxContext {
 public:
  // allow_remote: else UCX sees the loopback device only. kUnavailable with what to set, also where no worker can be made.
  static Result<std::shared_ptr<UcxContext>> open(bool allow_remote);
  ~UcxContext();
  UcxContext(const UcxContext&) = delete;
  UcxContext& operator=(const UcxContext&) = delete;

  // Once.
  Result<void> register_memory(std::span<std::byte> pool);
  ucp_mem_h memory() const { return memory_; }  // null if none is registered
  // An own worker, and the descriptor that says when it has something to do, which UCX owns.
  Result<ucp_worker_h> make_worker(int* event) const;

  std::string lanes;  // what carries the pages of the latest hop, for people

 private:
  explicit UcxContext(ucp_context_h context) : context_(context) {}

  ucp_context_h context_;
  ucp_mem_h memory_ = nullptr;
};

// "posix/memory cma/memory": what UCX says of an endpoint, cut to its lanes.
std::string lanes_of(ucp_ep_h endpoint);

// "ucx-1.13": what peers must have too, for versions of UCX refuse each other (docs/operations.md).
std::string ucx_transport_name();

Error ucx_error(ErrorCode code, const std::string& what, ucs_status_t status);

}  // namespace runahead
