#include "services/metrics/coordinator_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/limits.h"
#include "base/wall_clock.h"
#include "services/metrics/chain_balance.h"
#include "services/metrics/metrics_registry.h"
#include "services/metrics/vllm_names.h"

namespace runahead {
namespace {

using CounterFamily = prometheus::Family<prometheus::Counter>;
using GaugeFamily = prometheus::Family<prometheus::Gauge>;
using HistogramFamily = prometheus::Family<prometheus::Histogram>;

constexpr std::array kEndpoints = {"completions", "chat", "messages", "responses", "jobs"};
constexpr std::array kStatuses = {"ok", "client_error", "rejected", "server_error", "cancelled"};  // as RequestStatus
constexpr std::array kEnds = {"stop", "length", "failed", "cancelled"};  // runahead_requests_ended_total, outcome
constexpr std::array kJobEnds = {JobStatus::kSucceeded, JobStatus::kFailed, JobStatus::kCancelled};
constexpr std::array kRoles = {"prefill", "decode"};
constexpr std::array kReplans = {ErrorCode::kWorkerLost, ErrorCode::kCorrupt, ErrorCode::kDeadlineExceeded};
constexpr std::array kStrategies = {Strategy::kSingle, Strategy::kEven,     Strategy::kBalanced,
                                    Strategy::kByHand, Strategy::kSearched, Strategy::kPredicted};

const char* end_of(const RequestRecord& record) {
  if (record.outcome == RequestOutcome::kCancelled) return "cancelled";
  if (record.outcome == RequestOutcome::kError) return "failed";
  return record.reason == FinishReason::kLength ? "length" : "stop";
}

}  // namespace

struct CoordinatorMetrics::Series {
  explicit Series(const ProcessInfo& process);

  Labels with(Labels more) const {
    more.emplace("model_name", model_name);
    return more;
  }
  Labels of_rank(int32_t rank) const {
    return with({{"rank", std::to_string(std::clamp(rank, 0, limits::kWorkersMax - 1))}});
  }
  void show_rank(int32_t rank);
  void show_worker(const WorkerView& worker);
  void show_link(const RankRecord& record, std::string_view transport);
  void drop_links(const ClusterView& cluster);
  void show_model(const ClusterView& cluster);

  std::string model_name;
  MetricsRegistry registry;
  TlsRefusalCounters tls_refusals{registry};
  LoopStalls loop_stalls{registry};
  MemoryBounds memory_bounds{registry};
  // Requests
  HistogramFamily& ttft = registry.histograms("runahead_time_to_first_token_seconds",
                                              "first byte of the request parsed to first chunk written");
  HistogramFamily& stage = registry.histograms("runahead_ttft_stage_seconds",
                                               "share of one stage in the time to first token; the stages sum to it");
  HistogramFamily& inter_token = registry.histograms("runahead_inter_token_latency_seconds",
                                                     "between two tokens of one request, at the coordinator");
  HistogramFamily& duration =
      registry.histograms("runahead_request_duration_seconds", "first byte of the request to last byte of the answer");
  HistogramFamily& prompt_tokens = registry.histograms("runahead_request_prompt_tokens", "prompt tokens of a request");
  CounterFamily& requests = registry.counters("runahead_requests_total", "HTTP requests for generation, by outcome");
  CounterFamily& rejections =
      registry.counters("runahead_request_rejections_total", "work that was sent and not taken: 4xx, 503");
  CounterFamily& prompt_total = registry.counters("runahead_prompt_tokens_total", "prompt tokens of ended requests");
  CounterFamily& cached_total = registry.counters("runahead_cached_prompt_tokens_total",
                                                  "prompt tokens whose K/V a worker had kept from an earlier prompt");
  CounterFamily& generated_total =
      registry.counters("runahead_generation_tokens_total", "generated tokens of ended requests");
  HistogramFamily& generated =
      registry.histograms("runahead_request_generation_tokens", "generated tokens of a request");
  HistogramFamily& first_decode = registry.histograms("runahead_first_decode_seconds",
                                                      "first to second token of a request: hand-over and one step");
  CounterFamily& accepted =
      registry.counters("runahead_requests_accepted_total", "requests, one for each choice, that were taken");
  CounterFamily& ended =
      registry.counters("runahead_requests_ended_total", "accepted requests that have ended, by how");
  CounterFamily& cache_queries = registry.counters("runahead_prefix_cache_query_tokens_total",
                                                   "prompt tokens that were looked for among what workers keep");
  GaugeFamily& running = registry.gauges("runahead_requests_running", "requests in work");
  GaugeFamily& waiting =
      registry.gauges("runahead_requests_waiting", "accepted requests that wait for pages or workers");
  GaugeFamily& queued_tokens = registry.gauges("runahead_queued_prompt_tokens", "prompt tokens of waiting requests");
  // Plans and the chain
  HistogramFamily& plan_error =
      registry.histograms("runahead_plan_ttft_error_ratio", "|predicted - measured| / measured time to first token");
  HistogramFamily& predicted =
      registry.histograms("runahead_predicted_ttft_seconds", "what the plan predicted, from dispatch to first token");
  CounterFamily& critical = registry.counters("runahead_ttft_critical_rank_total",
                                              "first tokens by the rank that held up the ranks behind it");
  HistogramFamily& imbalance =
      registry.histograms("runahead_chain_imbalance_ratio", "most over mean computing time of a chain's ranks");
  CounterFamily& plans = registry.counters("runahead_plans_total", "plans that led to a first token");
  CounterFamily& replans =
      registry.counters("runahead_replans_total", "attempts that failed and were planned again or given up");
  GaugeFamily& chain_length = registry.gauges("runahead_chain_length", "ranks of the last chain");
  HistogramFamily& handoff =
      registry.histograms("runahead_kv_handoff_seconds", "first token at the decode worker to its first decode step");
  HistogramFamily& compute = registry.histograms("runahead_worker_prefill_compute_seconds", "compute time of a rank");
  HistogramFamily& kv_wait =
      registry.histograms("runahead_worker_kv_wait_seconds", "a rank's wait for K/V of the prefix");
  HistogramFamily& kv_send =
      registry.histograms("runahead_worker_kv_send_seconds", "first to last K/V page sent by a rank");
  HistogramFamily& chunk = registry.histograms("runahead_worker_chunk_tokens", "tokens of a rank's chunk");
  HistogramFamily& kv_wire =
      registry.histograms("runahead_worker_kv_wire_seconds", "of a rank's sending, with bytes on their way");
  HistogramFamily& kv_bytes = registry.histograms("runahead_kv_transfer_bytes", "K/V bytes over one hop");
  CounterFamily& kv_bytes_total = registry.counters("runahead_worker_kv_bytes_total", "K/V bytes of a rank");
  // Workers
  GaugeFamily& workers_ready = registry.gauges("runahead_workers_ready", "workers that take new work");
  GaugeFamily& up =
      registry.gauges("runahead_worker_up", "1: the worker is heard; 0: its lease runs out. Gone with the worker");
  GaugeFamily& cache =
      registry.gauges("runahead_worker_kv_cache_usage_ratio", "share of the worker's K/V pages in use");
  GaugeFamily& speed = registry.gauges("runahead_worker_tokens_per_second", "measured prefill speed without context");
  GaugeFamily& link =
      registry.gauges("runahead_worker_link_bytes_per_second", "measured speed of K/V into the worker; 0: not yet");
  GaugeFamily& heard = registry.gauges("runahead_worker_last_heartbeat_timestamp_seconds",
                                       "when the coordinator last heard of the worker, Unix time");
  GaugeFamily& link_speed = registry.gauges("runahead_link_bandwidth_bytes_per_second",
                                            "K/V from one worker to another, of the last transfer that was measured");
  GaugeFamily& link_rtt =
      registry.gauges("runahead_link_rtt_seconds", "least round trip of the last K/V connection between two workers");
  // Jobs, readiness, traces
  GaugeFamily& jobs = registry.gauges("runahead_jobs", "jobs that have not ended");
  CounterFamily& jobs_ended = registry.counters("runahead_jobs_ended_total", "jobs that have ended since the start");
  GaugeFamily& batches = registry.gauges("runahead_batches_open", "batches that have not ended");
  CounterFamily& batch_lines =
      registry.counters("runahead_batch_lines_total", "lines of batches that have their answer, or an error");
  CounterFamily& canaries =
      registry.counters("runahead_canary_completions_total", "completions that readiness depends on, by result");
  GaugeFamily& canary_seconds = registry.gauges("runahead_canary_seconds", "the last such completion; 0: none yet");
  prometheus::Counter& spans =
      registry.counters("runahead_otlp_spans_total", "spans that a collector has taken").Add(with({}));
  prometheus::Counter& traces_dropped =
      registry.counters("runahead_otlp_dropped_requests_total", "sampled requests whose spans no collector has taken")
          .Add(with({}));
  GaugeFamily& model_info = registry.gauges("runahead_model_info", "the served model");

  struct Worker {
    prometheus::Gauge *up, *cache, *speed, *link, *heard;
    bool listed = true;  // in the last view of the cluster
  };
  std::map<Labels, Worker> workers;
  struct Link {
    prometheus::Gauge *speed = nullptr, *rtt = nullptr;  // null: not measured yet
  };
  std::map<Labels, Link> links;  // by src, dst, transport; of workers that are here
  JobCounts jobs_counted;
  prometheus::Gauge* model = nullptr;
  int32_t ranks_shown = 0;
};

CoordinatorMetrics::Series::Series(const ProcessInfo& process) : model_name(process.model_name) {
  registry.gauges("runahead_build_info", "the running build")
      .Add({{"version", process.version}, {"revision", process.revision}, {"role", process.role}})
      .Set(1);
  const Labels model = with({});
  ttft.Add(model, buckets::kTtft);
  inter_token.Add(model, buckets::kToken);
  prompt_tokens.Add(model, buckets::kCount);
  plan_error.Add(model, buckets::kRatio);
  handoff.Add(model, buckets::kStage);
  generated.Add(model, buckets::kCount);
  first_decode.Add(model, buckets::kToken);
  predicted.Add(model, buckets::kTtft);
  imbalance.Add(model, buckets::kImbalance);
  for (auto* family : {&prompt_total, &cached_total, &generated_total, &accepted, &cache_queries}) family->Add(model);
  for (const char* how : kEnds) ended.Add(with({{"outcome", how}}));
  for (const char* state : {"waiting", "running"}) jobs.Add(with({{"state", state}}));
  for (const JobStatus status : kJobEnds) jobs_ended.Add(with({{"status", std::string(name(status))}}));
  batches.Add(with({}));
  for (const char* outcome : {"completed", "failed"}) batch_lines.Add(with({{"outcome", outcome}}));
  for (const char* result : {"passed", "failed"}) canaries.Add(with({{"result", result}}));
  canary_seconds.Add(with({}));
  for (auto* family : {&running, &waiting, &queued_tokens, &chain_length}) family->Add(model);
  for (const TtftStage s : kTtftStages) stage.Add(with({{"stage", std::string(name(s))}}), buckets::kStage);
  for (const char* endpoint : kEndpoints) {
    duration.Add(with({{"endpoint", endpoint}}), buckets::kRequest);
    for (const char* status : kStatuses) requests.Add(with({{"endpoint", endpoint}, {"status", status}}));
  }
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    const bool refuses = http_status(code) < 500 || code == ErrorCode::kUnavailable;
    if (refuses && code != ErrorCode::kCancelled) rejections.Add({{"reason", std::string(name(code))}});
  }
  for (const char* role : kRoles) workers_ready.Add({{"role", role}});
  for (const ErrorCode code : kReplans) replans.Add({{"reason", std::string(name(code))}});
  for (const Strategy strategy : kStrategies) plans.Add({{"strategy", std::string(name(strategy))}});
  show_rank(0);
}

void CoordinatorMetrics::Series::show_rank(int32_t rank) {
  for (; ranks_shown <= rank && ranks_shown < limits::kWorkersMax; ++ranks_shown) {
    compute.Add(of_rank(ranks_shown), buckets::kStage);
    kv_wait.Add(of_rank(ranks_shown), buckets::kStage);
    critical.Add(of_rank(ranks_shown));
    chunk.Add(of_rank(ranks_shown), buckets::kCount);
  }
}

void CoordinatorMetrics::Series::show_worker(const WorkerView& worker) {
  const Labels labels = {{"worker", worker.name}, {"role", worker.role}};
  auto it = workers.find(labels);
  if (it == workers.end())
    it = workers
             .emplace(labels, Worker{&up.Add(labels), &cache.Add(labels), &speed.Add(labels), &link.Add(labels),
                                     &heard.Add(labels)})
             .first;
  it->second.listed = true;
  it->second.up->Set(worker.state == "suspect" ? 0 : 1);
  const double used = static_cast<double>(worker.pages_total - worker.pages_free);
  it->second.cache->Set(worker.pages_total > 0 ? used / static_cast<double>(worker.pages_total) : 0);
  it->second.speed->Set(worker.tokens_per_second);
  it->second.link->Set(worker.link_bytes_per_second);
  it->second.heard->Set(static_cast<double>(unix_time_ms()) * 1e-3 - worker.silent_seconds);
}

void CoordinatorMetrics::Series::show_link(const RankRecord& record, std::string_view transport) {
  if (record.sender.empty() || record.receiver.empty()) return;
  const Labels labels = {{"src", std::string(record.sender)},
                         {"dst", std::string(record.receiver)},
                         {"transport", std::string(transport)}};
  if (record.kv_wire_seconds > 0 && record.kv_sent_bytes > 0) {
    Link& measured = links[labels];
    if (measured.speed == nullptr) measured.speed = &link_speed.Add(labels);
    measured.speed->Set(static_cast<double>(record.kv_sent_bytes) / record.kv_wire_seconds);
  }
  if (record.kv_rtt_seconds > 0) {
    Link& measured = links[labels];
    if (measured.rtt == nullptr) measured.rtt = &link_rtt.Add(labels);
    measured.rtt->Set(record.kv_rtt_seconds);
  }
}

// Of which an end has gone.
void CoordinatorMetrics::Series::drop_links(const ClusterView& cluster) {
  const auto is_here = [&](const std::string& name) {
    return std::ranges::find(cluster.workers, name, &WorkerView::name) != cluster.workers.end();
  };
  std::erase_if(links, [&](const auto& entry) {
    const auto& [labels, link] = entry;
    if (is_here(labels.at("src")) && is_here(labels.at("dst"))) return false;
    if (link.speed != nullptr) link_speed.Remove(link.speed);
    if (link.rtt != nullptr) link_rtt.Remove(link.rtt);
    return true;
  });
}

// Workers of another model or mode may follow those that have left.
void CoordinatorMetrics::Series::show_model(const ClusterView& cluster) {
  if (cluster.compute.empty()) return;
  prometheus::Gauge* shown =
      &model_info.Add(with({{"dtype", cluster.compute}, {"context_length", std::to_string(cluster.context_len)}}));
  if (model != nullptr && model != shown) model_info.Remove(model);
  model = shown;
  model->Set(1);
}

CoordinatorMetrics::CoordinatorMetrics(const ProcessInfo& process, bool vllm_names)
    : series_(std::make_unique<Series>(process)), vllm_names_(vllm_names) {}
CoordinatorMetrics::~CoordinatorMetrics() = default;

std::string CoordinatorMetrics::text() {
  return vllm_names_ ? text_with_vllm_names(series_->registry.collect()) : series_->registry.text();
}

void CoordinatorMetrics::http_request(std::string_view endpoint, RequestStatus status, double seconds) {
  Series& s = *series_;
  const std::string name(endpoint);
  s.requests.Add(s.with({{"endpoint", name}, {"status", kStatuses[static_cast<size_t>(status)]}})).Increment();
  if (status == RequestStatus::kOk) observe(s.duration.Add(s.with({{"endpoint", name}}), buckets::kRequest), seconds);
}

void CoordinatorMetrics::request_rejected(std::string_view reason) {
  series_->rejections.Add({{"reason", std::string(reason)}}).Increment();
}

void CoordinatorMetrics::request_accepted() { series_->accepted.Add(series_->with({})).Increment(); }

void CoordinatorMetrics::request_finished(const RequestRecord& record) {
  Series& s = *series_;
  s.ended.Add(s.with({{"outcome", end_of(record)}})).Increment();
  observe(s.generated.Add(s.with({}), buckets::kCount), record.generated_tokens);
  observe(s.prompt_tokens.Add(s.with({}), buckets::kCount), record.prompt_tokens);
  s.prompt_total.Add(s.with({})).Increment(record.prompt_tokens);
  s.generated_total.Add(s.with({})).Increment(record.generated_tokens);
}

void CoordinatorMetrics::first_token(const TtftReport& report) {
  Series& s = *series_;
  observe(s.ttft.Add(s.with({}), buckets::kTtft), report.ttft_seconds);
  for (const TtftStage stage : kTtftStages)
    observe(s.stage.Add(s.with({{"stage", std::string(name(stage))}}), buckets::kStage), report.stages[stage]);
  if (report.ttft_seconds > 0 && report.predicted_ttft_seconds > 0) {
    const double error = std::abs(report.predicted_ttft_seconds - report.ttft_seconds) / report.ttft_seconds;
    observe(s.plan_error.Add(s.with({}), buckets::kRatio), error);
  }
  if (report.predicted_ttft_seconds > 0)
    observe(s.predicted.Add(s.with({}), buckets::kTtft), report.predicted_ttft_seconds);
  if (!report.ranks.empty()) s.cache_queries.Add(s.with({})).Increment(report.ranks.back().chunk.end);
  s.cached_total.Add(s.with({})).Increment(report.cached_tokens);
  s.plans.Add({{"strategy", std::string(name(report.strategy))}}).Increment();
  s.chain_length.Add(s.with({})).Set(static_cast<double>(report.ranks.size()));
}

void CoordinatorMetrics::chain_finished(const TtftReport& report) {
  Series& s = *series_;
  const int32_t rank = critical_rank(report.ranks);
  s.show_rank(rank);
  s.critical.Add(s.of_rank(rank)).Increment();
  if (report.ranks.size() > 1) observe(s.imbalance.Add(s.with({}), buckets::kImbalance), imbalance_ratio(report.ranks));
}

void CoordinatorMetrics::rank_finished(const RankRecord& record, std::string_view transport) {
  Series& s = *series_;
  s.show_rank(record.rank);
  s.show_link(record, transport);
  const Labels rank = s.of_rank(record.rank);
  observe(s.compute.Add(rank, buckets::kStage), record.compute_seconds);
  observe(s.kv_wait.Add(rank, buckets::kStage), record.kv_wait_seconds);
  observe(s.chunk.Add(rank, buckets::kCount), record.chunk_tokens);
  Labels with_transport = rank;
  with_transport.emplace("transport", std::string(transport));
  observe(s.kv_send.Add(with_transport, buckets::kStage), record.kv_send_seconds);
  if (record.kv_wire_seconds > 0) observe(s.kv_wire.Add(with_transport, buckets::kStage), record.kv_wire_seconds);
  for (const auto& [direction, bytes] :
       {std::pair("sent", record.kv_sent_bytes), std::pair("received", record.kv_received_bytes)}) {
    Labels labels = with_transport;
    labels.emplace("direction", direction);
    s.kv_bytes_total.Add(labels).Increment(static_cast<double>(bytes));
  }
  const Labels hop = s.with({{"transport", std::string(transport)}, {"hop", record.is_last ? "handoff" : "chain"}});
  observe(s.kv_bytes.Add(hop, buckets::kBytes), static_cast<double>(record.kv_sent_bytes));
}

void CoordinatorMetrics::inter_token(double seconds) {
  observe(series_->inter_token.Add(series_->with({}), buckets::kToken), seconds);
}

void CoordinatorMetrics::first_decode(double seconds) {
  observe(series_->first_decode.Add(series_->with({}), buckets::kToken), seconds);
}

void CoordinatorMetrics::handoff(double seconds) {
  observe(series_->handoff.Add(series_->with({}), buckets::kStage), seconds);
}

void CoordinatorMetrics::attempt_failed(ErrorCode code) {
  series_->replans.Add({{"reason", std::string(name(code))}}).Increment();
}

void CoordinatorMetrics::queue_changed(const QueueGauges& gauges) {
  Series& s = *series_;
  s.running.Add(s.with({})).Set(gauges.running);
  s.waiting.Add(s.with({})).Set(gauges.waiting);
  s.queued_tokens.Add(s.with({})).Set(static_cast<double>(gauges.queued_prompt_tokens));
}

// What a worker that has left showed last is nobody's state; runahead_workers_ready says that it is missing.
void CoordinatorMetrics::workers_changed(const ClusterView& cluster) {
  Series& s = *series_;
  for (auto& [labels, worker] : s.workers) worker.listed = false;
  int32_t prefill_workers = 0;
  std::map<std::string, int> ready;
  for (const WorkerView& worker : cluster.workers) {
    s.show_worker(worker);
    prefill_workers += worker.role == "prefill" ? 1 : 0;
    ready[worker.role] += worker.state == "ready" ? 1 : 0;
  }
  for (auto it = s.workers.begin(); it != s.workers.end();) {
    const Series::Worker& worker = it->second;
    if (worker.listed) {
      ++it;
      continue;
    }
    s.up.Remove(worker.up);
    s.cache.Remove(worker.cache);
    s.speed.Remove(worker.speed);
    s.link.Remove(worker.link);
    s.heard.Remove(worker.heard);
    it = s.workers.erase(it);
  }
  s.drop_links(cluster);
  for (const char* role : kRoles) s.workers_ready.Add({{"role", role}}).Set(ready[role]);
  s.show_rank(prefill_workers - 1);
  s.show_model(cluster);
}

void CoordinatorMetrics::tls_refused(TlsRefusal why) { series_->tls_refusals.add(why); }

void CoordinatorMetrics::loop_stalled(double seconds) { series_->loop_stalls.add(seconds); }
void CoordinatorMetrics::memory_bound(const std::string& part, uint64_t bytes) {
  series_->memory_bounds.set(part, bytes);
}

void CoordinatorMetrics::jobs_changed(const JobCounts& counts) {
  Series& s = *series_;
  s.jobs.Add(s.with({{"state", "waiting"}})).Set(static_cast<double>(counts.waiting));
  s.jobs.Add(s.with({{"state", "running"}})).Set(static_cast<double>(counts.running));
  for (const auto& [status, count] : counts.ended) {
    int64_t& counted = s.jobs_counted.ended[status];
    s.jobs_ended.Add(s.with({{"status", std::string(name(status))}})).Increment(static_cast<double>(count - counted));
    counted = count;
  }
}

void CoordinatorMetrics::batches_open(int64_t count) {
  series_->batches.Add(series_->with({})).Set(static_cast<double>(count));
}

void CoordinatorMetrics::batch_line(bool completed) {
  series_->batch_lines.Add(series_->with({{"outcome", completed ? "completed" : "failed"}})).Increment();
}

void CoordinatorMetrics::canary(bool passed, double seconds) {
  series_->canaries.Add(series_->with({{"result", passed ? "passed" : "failed"}})).Increment();
  series_->canary_seconds.Add(series_->with({})).Set(seconds);
}

void CoordinatorMetrics::spans_sent(int64_t spans) { series_->spans.Increment(static_cast<double>(spans)); }
void CoordinatorMetrics::requests_dropped(int64_t requests) {
  series_->traces_dropped.Increment(static_cast<double>(requests));
}

}  // namespace runahead
