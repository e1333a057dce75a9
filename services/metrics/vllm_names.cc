#include "services/metrics/vllm_names.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <map>
#include <utility>

namespace runahead {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using Labels = std::map<std::string, std::string>;

struct Alias {
  const char* name;  // vLLM's
  const char* of;  // ours
  const char* help;
  const char* only_label = nullptr;  // those series alone whose label has this value
  const char* only_value = nullptr;
};

constexpr Alias kAliases[] = {
    {"vllm:time_to_first_token_seconds", "runahead_time_to_first_token_seconds", "time to first token"},
    {"vllm:inter_token_latency_seconds", "runahead_inter_token_latency_seconds", "between two tokens of a request"},
    {"vllm:time_per_output_token_seconds", "runahead_inter_token_latency_seconds", "its former name"},
    {"vllm:e2e_request_latency_seconds", "runahead_request_duration_seconds", "whole answers"},
    {"vllm:request_queue_time_seconds", "runahead_ttft_stage_seconds", "time in the queue", "stage", "queue"},
    {"vllm:request_prompt_tokens", "runahead_request_prompt_tokens", "prompt tokens of a request"},
    {"vllm:request_generation_tokens", "runahead_request_generation_tokens", "generated tokens of a request"},
    {"vllm:num_requests_running", "runahead_requests_running", "requests in work"},
    {"vllm:num_requests_waiting", "runahead_requests_waiting", "requests that wait"},
    {"vllm:prompt_tokens_total", "runahead_prompt_tokens_total", "prompt tokens of ended requests"},
    {"vllm:generation_tokens_total", "runahead_generation_tokens_total", "generated tokens of ended requests"},
    {"vllm:prefix_cache_queries_total", "runahead_prefix_cache_query_tokens_total", "tokens looked for"},
    {"vllm:prefix_cache_hits_total", "runahead_cached_prompt_tokens_total", "tokens found"},
};

const MetricFamily* find(const std::vector<MetricFamily>& families, const std::string& name) {
  const auto found = std::ranges::find(families, name, &MetricFamily::name);
  return found == families.end() ? nullptr : &*found;
}

std::string label_of(const ClientMetric& metric, const std::string& name) {
  for (const ClientMetric::Label& label : metric.label)
    if (label.name == name) return label.value;
  return {};
}

void add(ClientMetric& sum, const ClientMetric& more) {
  sum.counter.value += more.counter.value;
  sum.gauge.value += more.gauge.value;
  sum.histogram.sample_count += more.histogram.sample_count;
  sum.histogram.sample_sum += more.histogram.sample_sum;
  sum.histogram.bucket.resize(std::max(sum.histogram.bucket.size(), more.histogram.bucket.size()));
  for (size_t i = 0; i < more.histogram.bucket.size(); ++i) {
    sum.histogram.bucket[i].upper_bound = more.histogram.bucket[i].upper_bound;  // one family, one list of bounds
    sum.histogram.bucket[i].cumulative_count += more.histogram.bucket[i].cumulative_count;
  }
}

// vLLM has its model's name on every series, and nothing else on those.
ClientMetric of_model(ClientMetric metric, const std::string& model, Labels more = {}) {
  metric.label.clear();
  more.emplace("model_name", model);
  for (auto& [name, value] : more) metric.label.push_back({name, value});
  return metric;
}

// Submissions of jobs end with their acceptance: they are no answers.
bool is_meant(const Alias& alias, const ClientMetric& metric) {
  if (alias.only_label != nullptr && label_of(metric, alias.only_label) != alias.only_value) return false;
  return label_of(metric, "endpoint") != "jobs";
}

MetricFamily alias_of(const Alias& alias, const MetricFamily& ours, const std::string& model) {
  MetricFamily family{.name = alias.name, .help = alias.help, .type = ours.type, .metric = {}};
  ClientMetric sum;
  for (const ClientMetric& metric : ours.metric)
    if (is_meant(alias, metric)) add(sum, metric);
  family.metric.push_back(of_model(std::move(sum), model));
  return family;
}

// What has no name of ours alone: the fullest worker's share, and ends by vLLM's reasons.
MetricFamily cache_usage(const std::vector<MetricFamily>& families, const std::string& model) {
  ClientMetric fullest;
  if (const MetricFamily* ours = find(families, "runahead_worker_kv_cache_usage_ratio"))
    for (const ClientMetric& worker : ours->metric)
      fullest.gauge.value = std::max(fullest.gauge.value, worker.gauge.value);
  return {.name = "vllm:kv_cache_usage_perc",
          .help = "share of K/V pages in use, 1 is all, of the worker that has most",
          .type = prometheus::MetricType::Gauge,
          .metric = {of_model(std::move(fullest), model)}};
}

MetricFamily ends(const MetricFamily& ours, const std::string& model) {
  MetricFamily family{.name = "vllm:request_success_total",
                      .help = "requests that have ended, by why",
                      .type = prometheus::MetricType::Counter,
                      .metric = {}};
  for (const ClientMetric& metric : ours.metric) {
    const std::string outcome = label_of(metric, "outcome");
    if (outcome == "failed") continue;  // vLLM counts no failure among them
    family.metric.push_back(of_model(metric, model, {{"finished_reason", outcome == "cancelled" ? "abort" : outcome}}));
  }
  return family;
}

}  // namespace

std::string text_with_vllm_names(std::vector<MetricFamily> families) {
  const MetricFamily* ended = find(families, "runahead_requests_ended_total");
  if (ended == nullptr || ended->metric.empty()) return prometheus::TextSerializer().Serialize(families);
  const std::string model = label_of(ended->metric.front(), "model_name");
  std::vector<MetricFamily> aliases = {ends(*ended, model), cache_usage(families, model)};
  for (const Alias& alias : kAliases)
    if (const MetricFamily* ours = find(families, alias.of)) aliases.push_back(alias_of(alias, *ours, model));
  std::ranges::move(aliases, std::back_inserter(families));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace runahead
