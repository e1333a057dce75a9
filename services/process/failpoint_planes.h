// Both planes of a process with a failpoint: what passes through them, passes it. Built only where a failpoint is set.
//   control  each message, when it is sent and when it is received. Behind a sent one: when it has had time to leave the process.
//   K/V      kv_begin: a stream is opened; kv_page: a page is posted, or has arrived; kv_end: every page is there, at either end.
//   threads  the process's io_context thread.
#pragma once

#include <memory>

#include "services/process/failpoint.h"
#include "transport/control/control_plane.h"
#include "transport/kv/kv_transport.h"

namespace runahead {

// The plane outlives this one.
std::unique_ptr<ControlPlane> with_failpoint(ControlPlane& plane, std::shared_ptr<Failpoint> failpoint,
                                             asio::any_io_executor executor, Clock& clock);
std::unique_ptr<ControlPlane> with_failpoint(std::unique_ptr<ControlPlane> plane, std::shared_ptr<Failpoint> failpoint,
                                             asio::any_io_executor executor, Clock& clock);
std::unique_ptr<KvTransport> with_failpoint(std::unique_ptr<KvTransport> kv, std::shared_ptr<Failpoint> failpoint);

}  // namespace runahead
