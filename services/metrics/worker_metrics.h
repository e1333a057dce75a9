// WorkerMetrics: what happens in a worker, as Prometheus series. Names, labels and buckets: docs/operations.md. Every label
// set that is known at the start is there from the start, with zero.
//   threads  events on the io_context thread; text() on any. Neither takes a lock of the data path.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "actors/worker/worker_sink.h"
#include "kernels/ops.h"
#include "services/metrics/process_info.h"
#include "transport/tls/tls_identity.h"

namespace runahead {

class WorkerMetrics final : public WorkerSink {
 public:
  explicit WorkerMetrics(const ProcessInfo& process);
  ~WorkerMetrics() override;

  std::string text();
  void model_loaded(std::string_view compute, int32_t context_len, double seconds);
  void kernels_chosen(std::span<const KernelTiming> timings);

  void tls_refused(TlsRefusal why);
  void loop_stalled(double seconds);
  void memory_bound(const std::string& part, uint64_t bytes);

  void pages(const KvPool::Usage& usage) override;
  void kv_stream_ended(bool inbound, uint64_t bytes, double seconds) override;
  void kv_stream_failed(ErrorCode code) override;
  void lane_busy(std::string_view phase, double seconds) override;
  void decode_step(int32_t batch, double seconds) override;

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

}  // namespace runahead
