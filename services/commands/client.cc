// runahead status, submit, wait, jobs, cancel: a cluster that runs, over its API.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "base/limits.h"
#include "services/cluster/local_cluster.h"
#include "services/commands/api_client.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr int64_t kJobsPageMax = 1000;  // the API's
constexpr double kWaitSecondsMax = 30 * 24 * 3600;

// ---- status ----

std::string link_text(double bytes_per_second) {
  return bytes_per_second > 0 ? fmt::format("{:.2f} GB/s", bytes_per_second / 1e9) : std::string("-");
}

void print_cluster(const json& cluster) {
  fmt::print("{} running, {} waiting ({} prompt tokens); {}, context {}{}\n", cluster.value("running", 0),
             cluster.value("waiting", 0), cluster.value("queued_prompt_tokens", int64_t{0}),
             cluster.value("compute", ""), cluster.value("context_len", 0),
             cluster.value("draining", false) ? "; draining" : "");
  fmt::print("{:20} {:8} {:9} {:>7} {:>17} {:>9} {:>11}  {}\n", "worker", "role", "state", "running", "pages in use",
             "tokens/s", "link in", "device");
  for (const json& worker : cluster.value("workers", json::array())) {
    const auto total = worker.value("pages_total", int64_t{0}), idle = worker.value("pages_free", int64_t{0});
    fmt::print("{:20} {:8} {:9} {:>7} {:>17} {:>9.0f} {:>11}  {}\n", worker.value("name", ""), worker.value("role", ""),
               worker.value("state", ""), worker.value("running", 0), fmt::format("{} of {}", total - idle, total),
               worker.value("tokens_per_second", 0.0), link_text(worker.value("link_bytes_per_second", 0.0)),
               worker.value("device", ""));
  }
}

Result<void> status(const ClientOptions& options, const CommonOptions& common) {
  const json cluster = TRY(ask(options, "GET", "/v1/cluster"));
  if (common.json()) {
    print_json(cluster);
  } else {
    print_cluster(cluster);
  }
  return {};
}

// ---- jobs ----

struct SubmitOptions {
  ClientOptions client;
  PromptOptions prompt;
  int max_tokens = 256;
  std::optional<double> temperature;
  bool wait = false;
};

Result<json> job_body(const SubmitOptions& options) {
  const Prompt prompt = TRY(read_prompt(options.prompt));
  json body = {{"model", "default"}, {"max_tokens", options.max_tokens}};
  if (options.temperature) body["temperature"] = *options.temperature;
  if (prompt.chat) body["messages"] = json::array({{{"role", "user"}, {"content", prompt.text}}});
  else body["prompt"] = prompt.token_ids.empty() ? json(prompt.text) : json(prompt.token_ids);
  return body;
}

Result<void> submit(const SubmitOptions& options, const CommonOptions& common) {
  json job = TRY(ask(options.client, "POST", "/v1/jobs", TRY(job_body(options))));
  const std::string id = job.value("id", "");
  if (options.wait) {
    block_stop_signals();
    job = TRY(await_job(options.client, id, /*timeout_s=*/0));
  }
  if (options.wait || common.json()) return show_job(job, common);
  fmt::print("{}\n", id);
  return {};
}

struct JobsOptions {
  ClientOptions client;
  std::string id, after;
  int64_t limit = 20;
};

std::string utc_text(const json& unix_seconds) {
  if (!unix_seconds.is_number_integer()) return "-";
  const auto time = unix_seconds.get<std::time_t>();
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &utc);
  return text;
}

Result<void> jobs(const JobsOptions& options, const CommonOptions& common) {
  if (!options.id.empty()) return show_job(TRY(ask(options.client, "GET", "/v1/jobs/" + options.id)), common);
  const std::string page = options.after.empty() ? std::string() : "&after=" + options.after;
  const json list = TRY(ask(options.client, "GET", "/v1/jobs?limit=" + std::to_string(options.limit) + page));
  if (common.json()) {
    print_json(list);
    return {};
  }
  fmt::print("{:32} {:10} {:>8} {:>8}  {:20} {}\n", "job", "status", "prompt", "answer", "created, UTC", "error");
  for (const json& job : list.value("data", json::array())) {
    const json error = job.value("error", json());
    fmt::print("{:32} {:10} {:>8} {:>8}  {:20} {}\n", job.value("id", ""), job.value("status", ""),
               job.value("prompt_tokens", 0), job.value("completion_tokens", 0),
               utc_text(job.value("created_at", json())), error.is_object() ? error.value("message", "") : "");
  }
  if (list.value("has_more", false)) fmt::print(stderr, "more: --after {}\n", list.value("last_id", ""));
  return {};
}

struct WaitOptions {
  ClientOptions client;
  std::string id;
  double timeout_s = 0;
};

Result<void> wait(const WaitOptions& options, const CommonOptions& common) {
  block_stop_signals();
  return show_job(TRY(await_job(options.client, options.id, options.timeout_s)), common);
}

Result<void> cancel(const JobsOptions& options, const CommonOptions& common) {
  return show_job(TRY(ask(options.client, "DELETE", "/v1/jobs/" + options.id)), common);
}

}  // namespace

void add_client(CommandLine& line) {
  const auto seen = std::make_shared<ClientOptions>();
  add_client_flags(*line.add("status", "show a running cluster: its workers, links and queue",
                             [seen](const CommonOptions& common) { return status(*seen, common); }),
                   *seen);

  const auto sent = std::make_shared<SubmitOptions>();
  CLI::App* command = line.add("submit", "give a running cluster a prompt as a job, which outlives this program",
                               [sent](const CommonOptions& common) { return submit(*sent, common); });
  add_client_flags(*command, sent->client);
  add_prompt_flags(*command, sent->prompt);
  command->add_option("-n,--max-tokens", sent->max_tokens, "tokens of the answer at most")
      ->check(whole_number(1, limits::kModelContextMax));
  command->add_option("--temperature", sent->temperature, "0 takes the most likely token; default: the server's")
      ->check(real_number(0, 2));
  command->add_flag("--wait", sent->wait, "until it has ended, then print the answer");

  const auto listed = std::make_shared<JobsOptions>();
  command = line.add("jobs", "list the jobs of a running cluster, or show one",
                     [listed](const CommonOptions& common) { return jobs(*listed, common); });
  add_client_flags(*command, listed->client);
  command->add_option("id", listed->id, "of the job to show; without it the latest are listed")->check(check_id);
  command->add_option("--limit", listed->limit, "jobs of a list")->check(whole_number(1, kJobsPageMax));
  command->add_option("--after", listed->after, "the last job of the page before; without it the first page")
      ->check(check_id);

  const auto awaited = std::make_shared<WaitOptions>();
  command = line.add("wait", "wait until a job of a running cluster has ended, then print its answer",
                     [awaited](const CommonOptions& common) { return wait(*awaited, common); });
  add_client_flags(*command, awaited->client);
  command->add_option("id", awaited->id, "of the job")->required()->check(check_id);
  command->add_option("--timeout", awaited->timeout_s, "seconds to wait at most; 0: as long as it takes")
      ->check(real_number(0, kWaitSecondsMax));

  const auto ended = std::make_shared<JobsOptions>();
  command = line.add("cancel", "end a job of a running cluster",
                     [ended](const CommonOptions& common) { return cancel(*ended, common); });
  add_client_flags(*command, ended->client);
  command->add_option("id", ended->id, "of the job")->required()->check(check_id);
}

}  // namespace runahead
