#include "services/metrics/worker_metrics.h"

#include <array>

#include "services/metrics/metrics_registry.h"

namespace runahead {

struct WorkerMetrics::Series {
  explicit Series(const ProcessInfo& process);

  std::string model_name;
  MetricsRegistry registry;
  prometheus::Family<prometheus::Gauge>& pages =
      registry.gauges("runahead_kv_pages", "K/V pages of this worker by state");
  prometheus::Gauge& free = pages.Add({{"state", "free"}});
  prometheus::Gauge& kept = pages.Add({{"state", "kept"}});
  prometheus::Gauge& leased = pages.Add({{"state", "leased"}});
  prometheus::Gauge& quarantined = pages.Add({{"state", "quarantined"}});
  prometheus::Family<prometheus::Counter>& stream_bytes =
      registry.counters("runahead_kv_stream_bytes_total", "K/V bytes of ended streams of this worker");
  prometheus::Family<prometheus::Histogram>& stream_seconds =
      registry.histograms("runahead_kv_stream_seconds", "from a K/V stream's opening to its last page");
  prometheus::Family<prometheus::Counter>& failures =
      registry.counters("runahead_kv_transfer_failures_total", "K/V streams that ended with an error");
  prometheus::Family<prometheus::Counter>& busy =
      registry.counters("runahead_worker_busy_seconds_total", "time of the compute lane; its rate is the utilisation");
  prometheus::Histogram& step =
      registry.histograms("runahead_decode_step_seconds", "one step of the running batch").Add({}, buckets::kToken);
  prometheus::Histogram& batch =
      registry.histograms("runahead_decode_batch_size", "sequences of one decode step").Add({}, buckets::kCount);
  prometheus::Family<prometheus::Gauge>& model_info = registry.gauges("runahead_model_info", "the loaded model");
  prometheus::Family<prometheus::Gauge>& kernels =
      registry.gauges("runahead_kernel_operations_per_second",
                      "start-up timing on one core, of the kernels chosen for each compute mode");
  TlsRefusalCounters tls_refusals{registry};
  LoopStalls loop_stalls{registry};
  MemoryBounds memory_bounds{registry};
  prometheus::Gauge& load_seconds = registry.gauges("runahead_model_load_seconds", "time to load the model").Add({});
};

WorkerMetrics::Series::Series(const ProcessInfo& process) : model_name(process.model_name) {
  registry.gauges("runahead_build_info", "the running build")
      .Add({{"version", process.version}, {"revision", process.revision}, {"role", process.role}})
      .Set(1);
  for (const char* direction : {"received", "sent"}) {
    stream_bytes.Add({{"direction", direction}});
    stream_seconds.Add({{"direction", direction}}, buckets::kStage);
  }
  for (const ErrorCode code :
       {ErrorCode::kWorkerLost, ErrorCode::kCorrupt, ErrorCode::kDeadlineExceeded, ErrorCode::kUnauthorized})
    failures.Add({{"reason", std::string(name(code))}});
  for (const char* phase : {"compute", "decode"}) busy.Add({{"phase", phase}});
}

WorkerMetrics::WorkerMetrics(const ProcessInfo& process) : series_(std::make_unique<Series>(process)) {}
WorkerMetrics::~WorkerMetrics() = default;

std::string WorkerMetrics::text() { return series_->registry.text(); }

void WorkerMetrics::model_loaded(std::string_view compute, int32_t context_len, double seconds) {
  series_->model_info
      .Add({{"model_name", series_->model_name},
            {"dtype", std::string(compute)},
            {"context_length", std::to_string(context_len)}})
      .Set(1);
  series_->load_seconds.Set(seconds);
}

void WorkerMetrics::kernels_chosen(std::span<const KernelTiming> timings) {
  for (const KernelTiming& timing : timings) {
    if (!timing.chosen) continue;
    const auto set = [&](const char* what, double giga_ops) {
      series_->kernels.Add({{"isa", timing.isa}, {"compute", std::string(name(timing.mode))}, {"what", what}})
          .Set(giga_ops * 1e9);
    };
    set("dot", timing.giga_ops_per_second);
    set("product", timing.gemm_giga_ops_per_second);
  }
}

void WorkerMetrics::pages(const KvPool::Usage& usage) {
  series_->free.Set(static_cast<double>(usage.free));
  series_->kept.Set(static_cast<double>(usage.kept));
  series_->leased.Set(static_cast<double>(usage.leased));
  series_->quarantined.Set(static_cast<double>(usage.quarantined));
}

void WorkerMetrics::tls_refused(TlsRefusal why) { series_->tls_refusals.add(why); }

void WorkerMetrics::loop_stalled(double seconds) { series_->loop_stalls.add(seconds); }
void WorkerMetrics::memory_bound(const std::string& part, uint64_t bytes) { series_->memory_bounds.set(part, bytes); }

void WorkerMetrics::kv_stream_ended(bool inbound, uint64_t bytes, double seconds) {
  const Labels labels = {{"direction", inbound ? "received" : "sent"}};
  series_->stream_bytes.Add(labels).Increment(static_cast<double>(bytes));
  observe(series_->stream_seconds.Add(labels, buckets::kStage), seconds);
}

void WorkerMetrics::kv_stream_failed(ErrorCode code) {
  series_->failures.Add({{"reason", std::string(name(code))}}).Increment();
}

void WorkerMetrics::lane_busy(std::string_view phase, double seconds) {
  series_->busy.Add({{"phase", std::string(phase)}}).Increment(seconds);
}

void WorkerMetrics::decode_step(int32_t batch, double seconds) {
  observe(series_->step, seconds);
  observe(series_->batch, batch);
}

}  // namespace runahead
