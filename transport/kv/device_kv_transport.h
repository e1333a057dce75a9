// The two ways of KV pages from GPU to GPU. Pages are memory of the GPU, which its engine computes on; nothing of them is on the
// host. nccl: over NVLink, PCIe or RDMA as NCCL finds it, between workers with a GPU each. ipc (CUDA IPC): between workers that
// share a GPU, which NCCL refuses.
//   check    CRC32C is taken on the device, by the sender before it announces a page and by the receiver behind it.
//   threads  as HopKvTransport; calls of NCCL and the driver are on a thread of each hop (device_lane.h).
#pragma once

#include "transport/kv/kv_transport.h"
#include "transport/kv/kv_transport_options.h"

namespace runahead {

// kUnavailable without NCCL's library, kUnsupported without a device.
Result<std::unique_ptr<KvTransport>> make_nccl_kv_transport(KvTransportOptions options, asio::any_io_executor executor,
                                                            Clock& clock);
Result<std::unique_ptr<KvTransport>> make_ipc_kv_transport(KvTransportOptions options, asio::any_io_executor executor,
                                                           Clock& clock);

}  // namespace runahead
