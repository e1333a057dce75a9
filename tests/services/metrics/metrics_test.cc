// The metrics as Prometheus sees them: promtool accepts them, every known label set is there from the start, and events
// end up in the right series.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>

#include "services/metrics/coordinator_metrics.h"
#include "services/metrics/worker_metrics.h"

namespace runahead {
namespace {

const ProcessInfo kProcess{"coordinator", "1.2.3", "abc", "toy"};

// The value of the first line that begins with `series`; NaN if there is none.
double value(const std::string& text, const std::string& series) {
  const size_t at = text.find("\n" + series + " ");
  return at == std::string::npos ? std::nan("") : std::stod(text.substr(at + 1 + series.size()));
}

void a_prompt(CoordinatorMetrics& metrics) {
  TtftReport report;
  report.ttft_seconds = 2;
  report.predicted_ttft_seconds = 1;
  report.stages[TtftStage::kKvWait] = 0.5;
  report.ranks.resize(2);
  metrics.first_token(report);
  metrics.rank_finished({.rank = 1,
                         .is_last = true,
                         .chunk_tokens = 64,
                         .compute_seconds = 1,
                         .kv_wire_seconds = 2,
                         .kv_sent_bytes = 4096,
                         .sender = "w1",
                         .receiver = "w2",
                         .kv_rtt_seconds = 0.001},
                        "tcp");
  report.ranks[0].compute_seconds = 3;
  report.ranks[1] = {.rank = 1, .compute_seconds = 0.5, .kv_wait_seconds = 2, .sample_seconds = 0.5};
  metrics.chain_finished(report);
  for (int i = 0; i < 4; ++i) metrics.request_accepted();
  metrics.request_finished({.reason = FinishReason::kLength, .prompt_tokens = 100, .generated_tokens = 7});
  metrics.request_finished({.outcome = RequestOutcome::kCancelled});
  metrics.request_finished({.outcome = RequestOutcome::kError});
  metrics.first_decode(0.03);
  metrics.attempt_failed(ErrorCode::kWorkerLost);
  metrics.inter_token(0.02);
  metrics.handoff(0.01);
}

void the_gateway(CoordinatorMetrics& metrics) {
  metrics.jobs_changed({.waiting = 2, .running = 1, .ended = {{JobStatus::kFailed, 3}}});
  metrics.jobs_changed({.waiting = 1, .running = 1, .ended = {{JobStatus::kFailed, 4}}});
  metrics.batches_open(2);
  metrics.batches_open(1);
  metrics.batch_line(true);
  metrics.batch_line(false);
  metrics.batch_line(true);
  metrics.canary(true, 0.5);
  metrics.spans_sent(9);
  metrics.requests_dropped(2);
  metrics.request_rejected("overloaded");
  metrics.request_rejected("context_length_exceeded");
  metrics.queue_changed({3, 4, 500});
  metrics.http_request("chat", RequestStatus::kOk, 1.5);
  metrics.http_request("jobs", RequestStatus::kRejected, 0.1);
  metrics.http_request("chat", RequestStatus::kClientError, 0.1);
  metrics.http_request("chat", RequestStatus::kServerError, 0.1);
}

void everything(CoordinatorMetrics& metrics) {
  a_prompt(metrics);
  the_gateway(metrics);
  ClusterView cluster;
  cluster.compute = "fp32";
  cluster.context_len = 2048;
  cluster.workers = {{1, "w1", "prefill", "cpu", "tcp", "ready", 100, 25, 1, 900},
                     {2, "w2", "decode", "cpu", "tcp", "ready", 100, 100, 0, 900}};
  cluster.workers[0].silent_seconds = 100;
  metrics.workers_changed(cluster);
}

TEST(Metrics, EventsEndUpInTheirSeries) {
  CoordinatorMetrics metrics(kProcess);
  everything(metrics);
  const std::string text = "\n" + metrics.text();
  EXPECT_EQ(value(text, R"(runahead_time_to_first_token_seconds_sum{model_name="toy"})"), 2);
  EXPECT_EQ(value(text, R"(runahead_ttft_stage_seconds_sum{model_name="toy",stage="kv_wait"})"), 0.5);
  EXPECT_EQ(value(text, R"(runahead_plan_ttft_error_ratio_sum{model_name="toy"})"), 0.5);
  EXPECT_EQ(value(text, R"(runahead_worker_prefill_compute_seconds_sum{model_name="toy",rank="1"})"), 1);
  EXPECT_EQ(
      value(text, R"(runahead_worker_kv_bytes_total{direction="sent",model_name="toy",rank="1",transport="tcp"})"),
      4096);
  EXPECT_EQ(value(text, R"(runahead_kv_transfer_bytes_count{hop="handoff",model_name="toy",transport="tcp"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_prompt_tokens_total{model_name="toy"})"), 100);
  EXPECT_EQ(value(text, R"(runahead_generation_tokens_total{model_name="toy"})"), 7);
  EXPECT_EQ(value(text, R"(runahead_requests_total{endpoint="chat",model_name="toy",status="ok"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_requests_total{endpoint="jobs",model_name="toy",status="rejected"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_request_rejections_total{reason="overloaded"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_request_rejections_total{reason="context_length_exceeded"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_requests_total{endpoint="chat",model_name="toy",status="client_error"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_requests_total{endpoint="chat",model_name="toy",status="server_error"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_workers_ready{role="decode"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_replans_total{reason="worker_lost"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_requests_waiting{model_name="toy"})"), 4);
  EXPECT_EQ(value(text, R"(runahead_queued_prompt_tokens{model_name="toy"})"), 500);
  EXPECT_EQ(value(text, R"(runahead_chain_length{model_name="toy"})"), 2);
  EXPECT_EQ(value(text, R"(runahead_worker_kv_cache_usage_ratio{role="prefill",worker="w1"})"), 0.75);
}

TEST(Metrics, WhatTheChainTheJobsAndTheTracesSayEndsUpInItsSeries) {
  CoordinatorMetrics metrics(kProcess);
  everything(metrics);
  const std::string text = "\n" + metrics.text();
  EXPECT_EQ(value(text, R"(runahead_ttft_critical_rank_total{model_name="toy",rank="0"})"), 1)
      << "rank 1 waited for it";
  EXPECT_EQ(value(text, R"(runahead_ttft_critical_rank_total{model_name="toy",rank="1"})"), 0);
  EXPECT_EQ(value(text, R"(runahead_chain_imbalance_ratio_sum{model_name="toy"})"), 1.5) << "3 s over 2 s";
  EXPECT_EQ(value(text, R"(runahead_predicted_ttft_seconds_sum{model_name="toy"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_first_decode_seconds_sum{model_name="toy"})"), 0.03);
  EXPECT_EQ(value(text, R"(runahead_link_bandwidth_bytes_per_second{dst="w2",src="w1",transport="tcp"})"), 2048);
  EXPECT_EQ(value(text, R"(runahead_link_rtt_seconds{dst="w2",src="w1",transport="tcp"})"), 0.001);
  EXPECT_EQ(value(text, R"(runahead_requests_accepted_total{model_name="toy"})"), 4);
  for (const auto& [outcome, count] : {std::pair("length", 1), {"cancelled", 1}, {"failed", 1}, {"stop", 0}})
    EXPECT_EQ(value(text, std::string(R"(runahead_requests_ended_total{model_name="toy",outcome=")") + outcome + "\"}"),
              count);
  EXPECT_EQ(value(text, R"(runahead_jobs{model_name="toy",state="waiting"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_jobs_ended_total{model_name="toy",status="failed"})"), 4);
  EXPECT_EQ(value(text, R"(runahead_batches_open{model_name="toy"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_batch_lines_total{model_name="toy",outcome="completed"})"), 2);
  EXPECT_EQ(value(text, R"(runahead_canary_completions_total{model_name="toy",result="passed"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_otlp_spans_total{model_name="toy"})"), 9);
  EXPECT_EQ(value(text, R"(runahead_otlp_dropped_requests_total{model_name="toy"})"), 2);
  const double heard = value(text, R"(runahead_worker_last_heartbeat_timestamp_seconds{role="prefill",worker="w1"})");
  EXPECT_NEAR(heard, static_cast<double>(std::time(nullptr)) - 100, 5);
}

TEST(Metrics, VllmsNamesAreMadeOfOurSeries) {
  CoordinatorMetrics metrics(kProcess, true);
  everything(metrics);
  metrics.http_request("completions", RequestStatus::kOk, 2);
  metrics.http_request("jobs", RequestStatus::kOk, 100);
  const std::string text = "\n" + metrics.text();
  EXPECT_EQ(value(text, R"(vllm:time_to_first_token_seconds_sum{model_name="toy"})"), 2);
  EXPECT_EQ(value(text, R"(vllm:e2e_request_latency_seconds_sum{model_name="toy"})"), 3.5)
      << "of both endpoints, no job";
  EXPECT_EQ(value(text, R"(vllm:e2e_request_latency_seconds_count{model_name="toy"})"), 2);
  EXPECT_EQ(value(text, R"(vllm:e2e_request_latency_seconds_bucket{model_name="toy",le="1.5"})"), 1);
  EXPECT_EQ(value(text, R"(vllm:e2e_request_latency_seconds_bucket{model_name="toy",le="+Inf"})"), 2);
  EXPECT_EQ(value(text, R"(vllm:num_requests_running{model_name="toy"})"), 3);
  EXPECT_EQ(value(text, R"(vllm:kv_cache_usage_perc{model_name="toy"})"), 0.75) << "of the fullest worker";
  EXPECT_EQ(value(text, R"(vllm:request_success_total{finished_reason="length",model_name="toy"})"), 1);
  EXPECT_EQ(value(text, R"(vllm:request_success_total{finished_reason="abort",model_name="toy"})"), 1);
  EXPECT_EQ(value(text, R"(vllm:generation_tokens_total{model_name="toy"})"), 7);
  EXPECT_EQ(CoordinatorMetrics(kProcess).text().find("vllm"), std::string::npos) << "only where it is asked for";
}

TEST(Metrics, ASampleThatIsNoNumberIsNone) {
  CoordinatorMetrics metrics(kProcess);
  for (const double odd : {std::nan(""), double{INFINITY}, -double{INFINITY}}) metrics.handoff(odd);
  metrics.handoff(0.5);
  const std::string text = metrics.text();
  EXPECT_EQ(value(text, "runahead_kv_handoff_seconds_count{model_name=\"toy\"}"), 1);
  EXPECT_EQ(value(text, "runahead_kv_handoff_seconds_sum{model_name=\"toy\"}"), 0.5);
}

TEST(Metrics, KnownLabelSetsAreThereFromTheStart) {
  CoordinatorMetrics metrics(kProcess);
  const std::string text = "\n" + metrics.text();
  for (const TtftStage stage : kTtftStages) {
    const std::string series =
        R"(runahead_ttft_stage_seconds_count{model_name="toy",stage=")" + std::string(name(stage)) + "\"}";
    EXPECT_EQ(value(text, series), 0) << name(stage);
  }
  for (const char* status : {"ok", "client_error", "rejected", "server_error", "cancelled"})
    EXPECT_EQ(value(text, std::string(R"(runahead_requests_total{endpoint="completions",model_name="toy",status=")") +
                              status + "\"}"),
              0);
  for (const char* reason : {"invalid_argument", "unsupported_parameter", "context_length_exceeded", "too_large",
                             "unauthorized", "not_found", "overloaded", "unavailable"})
    EXPECT_EQ(value(text, std::string(R"(runahead_request_rejections_total{reason=")") + reason + "\"}"), 0) << reason;
  for (const char* strategy : {"single", "even", "balanced", "cuts", "searched", "predicted"})
    EXPECT_EQ(value(text, std::string(R"(runahead_plans_total{strategy=")") + strategy + "\"}"), 0) << strategy;
  for (const char* role : {"prefill", "decode"})
    EXPECT_EQ(value(text, std::string(R"(runahead_workers_ready{role=")") + role + "\"}"), 0);
  EXPECT_EQ(value(text, R"(runahead_build_info{revision="abc",role="coordinator",version="1.2.3"})"), 1);
  WorkerMetrics worker({"prefill", "1.2.3", "abc", "toy"});
  const std::string worker_text = "\n" + worker.text();
  for (const char* state : {"free", "kept", "leased", "quarantined"})
    EXPECT_EQ(value(worker_text, std::string("runahead_kv_pages{state=\"") + state + "\"}"), 0);
}

TEST(Metrics, AWorkersSeriesLeaveWithIt) {
  CoordinatorMetrics metrics(kProcess);
  everything(metrics);
  const std::string up = R"(runahead_worker_up{role="prefill",worker="w1"})";
  EXPECT_EQ(value("\n" + metrics.text(), up), 1);
  ClusterView suspect;
  suspect.workers = {{1, "w1", "prefill", "cpu", "tcp", "suspect", 100, 25, 1, 900}};
  metrics.workers_changed(suspect);
  EXPECT_EQ(value("\n" + metrics.text(), up), 0) << "it is still there, but is not heard";
  EXPECT_EQ(value("\n" + metrics.text(), R"(runahead_workers_ready{role="prefill"})"), 0);
  metrics.workers_changed(ClusterView{});
  const std::string text = metrics.text();
  for (const char* series :
       {"runahead_worker_up{", "runahead_worker_kv_cache_usage_ratio{", "runahead_worker_tokens_per_second{",
        "runahead_worker_link_bytes_per_second{", "runahead_worker_last_heartbeat_timestamp_seconds{",
        "runahead_link_rtt_seconds{", "runahead_link_bandwidth_bytes_per_second{"})
    EXPECT_EQ(text.find(series), std::string::npos) << series;
  EXPECT_EQ(value("\n" + text, R"(runahead_workers_ready{role="decode"})"), 0);
  everything(metrics);
  EXPECT_EQ(value("\n" + metrics.text(), up), 1) << "and it may come back";
}

TEST(Metrics, OneModelIsShownAtATime) {
  CoordinatorMetrics metrics(kProcess);
  everything(metrics);
  ClusterView other;
  other.compute = "int8";
  other.context_len = 2048;
  metrics.workers_changed(other);
  const std::string text = metrics.text();
  EXPECT_EQ(text.find(R"(dtype="fp32")"), std::string::npos);
  EXPECT_NE(text.find(R"(dtype="int8")"), std::string::npos);
}

void expect_promtool_accepts(const std::string& text) {
  if (std::system("command -v promtool > /dev/null 2>&1") != 0)
    GTEST_SKIP() << "promtool is not installed (Debian: prometheus)";
  const std::string path = ::testing::TempDir() + "/metrics-" + std::to_string(getpid());
  std::ofstream(path) << text;
  std::FILE* promtool = popen(("promtool check metrics < " + path + " 2>&1").c_str(), "r");
  std::string output(4096, '\0');
  output.resize(std::fread(output.data(), 1, output.size(), promtool));
  EXPECT_EQ(pclose(promtool), 0) << output;
  std::remove(path.c_str());
}

TEST(Metrics, PromtoolAcceptsTheCoordinators) {
  CoordinatorMetrics metrics(kProcess);
  everything(metrics);
  expect_promtool_accepts(metrics.text());
}

TEST(Metrics, PromtoolAcceptsTheWorkers) {
  WorkerMetrics metrics({"decode", "1.2.3", "abc", "toy"});
  metrics.pages({.total = 100, .free = 60, .leased = 30, .quarantined = 10});
  metrics.kv_stream_ended(true, 1000, 0.5);
  metrics.kv_stream_failed(ErrorCode::kCorrupt);
  metrics.lane_busy("decode", 0.5);
  metrics.decode_step(3, 0.01);
  metrics.model_loaded("fp32", 2048, 0.4);
  metrics.kernels_chosen(std::vector<KernelTiming>{{.isa = "avx2",
                                                    .mode = ComputeMode::kFp32,
                                                    .giga_ops_per_second = 60,
                                                    .gemm_giga_ops_per_second = 50,
                                                    .chosen = true},
                                                   {.isa = "generic", .mode = ComputeMode::kFp32}});
  metrics.tls_refused(TlsRefusal::kRevoked);
  const std::string text = "\n" + metrics.text();
  EXPECT_EQ(value(text, R"(runahead_tls_refused_peers_total{reason="revoked"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_tls_refused_peers_total{reason="no_tls"})"), 0);
  EXPECT_EQ(value(text, R"(runahead_kv_pages{state="leased"})"), 30);
  EXPECT_EQ(value(text, "runahead_decode_batch_size_sum"), 3);
  EXPECT_EQ(value(text, R"(runahead_kv_transfer_failures_total{reason="corrupt"})"), 1);
  EXPECT_EQ(value(text, R"(runahead_kernel_operations_per_second{compute="fp32",isa="avx2",what="dot"})"), 60e9);
  EXPECT_EQ(text.find("generic"), std::string::npos);
  expect_promtool_accepts(metrics.text());
}

}  // namespace
}  // namespace runahead
