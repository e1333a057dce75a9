// UcxOperation: what UCX has in hand, and whom its end is told. Freed when UCX calls back, which it does from progress or
// from ucp_worker_destroy; `pending` counts those that it has not. Private to the UCX transport.
#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <utility>

#include "transport/kv/message_streams.h"

namespace runahead {

struct UcxOperation {
  size_t& pending;
  MessageEndpoint::Done done;
};

inline UcxOperation* keep(size_t& pending, MessageEndpoint::Done done) {
  ++pending;
  return new UcxOperation{pending, std::move(done)};
}

inline void finish(void* kept, ucs_status_t status) {
  const std::unique_ptr<UcxOperation> operation(static_cast<UcxOperation*>(kept));
  --operation->pending;
  operation->done(status == UCS_OK ? nullptr : ucs_status_string(status), std::nullopt);
}

inline void on_sent(void* request, ucs_status_t status, void* kept) {
  ucp_request_free(request);
  finish(kept, status);
}

inline void on_received(void* request, ucs_status_t status, size_t, void* kept) { on_sent(request, status, kept); }

inline ucp_request_param_t request_param(UcxOperation* kept, uint32_t flags) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.cb.send = on_sent;
  param.user_data = kept;
  param.flags = flags;
  return param;
}

}  // namespace runahead
