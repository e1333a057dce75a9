// CoordinatorMetrics, WorkerMetrics: what happens in a process, as Prometheus series. Names, labels and buckets:
// docs/operations.md. Every label set that is known at the start is there from the start, with zero.
//   threads  events on the io_context thread; text() on any. Neither takes a lock of the data path.
//   labels   rank (below kWorkersMax) and worker are the only ones that grow. A worker's series leave with it.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "actors/metrics_sink.h"
#include "kernels/ops.h"
#include "services/gateway/gateway_metrics.h"

namespace runahead {

struct ProcessInfo {
  std::string role;  // "coordinator", "prefill", "decode"
  std::string version, revision;
  std::string model_name;
};

class CoordinatorMetrics final : public MetricsSink, public GatewayMetrics {
 public:
  explicit CoordinatorMetrics(const ProcessInfo& process);
  ~CoordinatorMetrics() override;

  void http_request(std::string_view endpoint, RequestStatus status, double seconds) override;
  void request_rejected(std::string_view reason) override;
  std::string text() override;

  void request_finished(const RequestRecord& record) override;
  void first_token(const TtftReport& report) override;
  void rank_finished(const RankRecord& record, std::string_view transport) override;
  void inter_token(double seconds) override;
  void handoff(double seconds) override;
  void attempt_failed(ErrorCode code) override;
  void queue_changed(const QueueGauges& gauges) override;
  void workers_changed(const ClusterView& cluster) override;

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

class WorkerMetrics final : public MetricsSink {
 public:
  explicit WorkerMetrics(const ProcessInfo& process);
  ~WorkerMetrics() override;

  std::string text();
  void model_loaded(std::string_view compute, int32_t context_len, double seconds);
  void kernels_chosen(std::span<const KernelTiming> timings);

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
