// CoordinatorMetrics: what happens in a coordinator and its gateway, as Prometheus series. Names, labels and buckets:
// docs/operations.md. Every label set that is known at the start is there from the start, with zero.
//   threads  events on the io_context thread; text() on any. Neither takes a lock of the data path.
//   labels   rank (below kWorkersMax) and worker are the only ones that grow. A worker's series leave with it.
#pragma once

#include <memory>
#include <string>

#include "actors/coordinator/coordinator_sink.h"
#include "actors/jobs/job_service.h"
#include "services/gateway/gateway_metrics.h"
#include "services/metrics/process_info.h"
#include "services/tracing/otlp_exporter.h"
#include "transport/tls/tls_identity.h"

namespace runahead {

class CoordinatorMetrics final : public CoordinatorSink, public GatewayMetrics, public OtlpSink {
 public:
  // vllm_names: the same truth under the names that vLLM gives it, too (services/metrics/vllm_names.h).
  explicit CoordinatorMetrics(const ProcessInfo& process, bool vllm_names = false);
  ~CoordinatorMetrics() override;

  void http_request(std::string_view endpoint, RequestStatus status, double seconds) override;
  void request_rejected(std::string_view reason) override;
  std::string text() override;

  void request_accepted() override;
  void request_finished(const RequestRecord& record) override;
  void first_token(const TtftReport& report) override;
  void chain_finished(const TtftReport& report) override;
  void rank_finished(const RankRecord& record, std::string_view transport) override;
  void inter_token(double seconds) override;
  void first_decode(double seconds) override;
  void handoff(double seconds) override;
  void attempt_failed(ErrorCode code) override;
  void queue_changed(const QueueGauges& gauges) override;
  void workers_changed(const ClusterView& cluster) override;

  void tls_refused(TlsRefusal why);
  void loop_stalled(double seconds);
  void memory_bound(const std::string& part, uint64_t bytes);
  void jobs_changed(const JobCounts& counts);
  void batches_open(int64_t count) override;
  void batch_line(bool completed) override;
  void canary(bool passed, double seconds);
  void spans_sent(int64_t spans) override;
  void requests_dropped(int64_t requests) override;

 private:
  struct Series;
  std::unique_ptr<Series> series_;
  const bool vllm_names_;
};

}  // namespace runahead
