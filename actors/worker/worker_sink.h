// WorkerSink: what happens in a worker, as events. services/metrics turns them into Prometheus series; the default does
// nothing. Names and buckets are the implementation's (reference: docs/operations.md).
//   threads  called on the actor thread; must not block.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "model/kv_pages.h"

namespace runahead {

class WorkerSink {
 public:
  virtual ~WorkerSink() = default;

  virtual void pages(const KvPool::Usage&) {}
  virtual void kv_stream_ended(bool /*inbound*/, uint64_t /*bytes*/, double /*seconds*/) {}
  virtual void kv_stream_failed(ErrorCode) {}
  virtual void lane_busy(std::string_view /*phase*/, double /*seconds*/) {}  // "compute", "decode"
  virtual void decode_step(int32_t /*batch*/, double /*seconds*/) {}
};

}  // namespace runahead
