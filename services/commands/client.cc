// runahead status, submit, jobs, cancel: a cluster that runs, over its API.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "base/limits.h"
#include "services/cluster/local_cluster.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/http/http_client.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kTimeout{30};
constexpr std::chrono::milliseconds kPoll{300};  // of a job that is waited for
constexpr int64_t kJobsPageMax = 1000;  // the API's

struct ClientOptions {
  std::string url = "127.0.0.1:8000", api_key;
};

void add_client_flags(CLI::App& command, ClientOptions& options) {
  command.add_option("--url", options.url, "host:port of the API");
  command.add_option("--api-key", options.api_key,
                     "key of the API, better in RUNAHEAD_API_KEY, which no list of processes shows; default: none");
}

Result<json> ask(const ClientOptions& options, const std::string& method, const std::string& target,
                 const json& body = nullptr) {
  const HttpAnswer answer = TRY(HttpClient(options.url, kTimeout, options.api_key)
                                    .request(method, target, body.is_null() ? std::string() : to_text(body)));
  if (answer.status == 401)
    return fail(ErrorCode::kUnauthorized,
                "this API takes no call without its key; give it in RUNAHEAD_API_KEY or by --api-key");
  if (answer.status < 200 || answer.status > 299) return std::unexpected(error_of(answer));
  json parsed = json::parse(answer.body, nullptr, false);
  if (!parsed.is_object())
    return fail(ErrorCode::kUnavailable, "what answers at " + options.url + " is no coordinator of Runahead", "url");
  return parsed;
}

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

bool has_ended(const json& job) {
  const std::string status = job.value("status", "");
  return status != "queued" && status != "running";
}

std::string answer_of(const json& job) {
  const json result = job.value("result", json());
  if (!result.is_object() || result.value("choices", json::array()).empty()) return {};
  const json& choice = result["choices"][0];
  return choice.contains("message") ? choice["message"].value("content", "") : choice.value("text", "");
}

// The answer of a job that has one, and the error of one that failed.
Result<void> show_job(const json& job, const CommonOptions& common) {
  const std::string status = job.value("status", "");
  if (common.json()) {
    print_json(job);
  } else if (status == "succeeded") {
    print_text(answer_of(job) + "\n");
  } else {
    fmt::print("{} {}\n", job.value("id", ""), status);
  }
  if (status != "failed") return {};
  return std::unexpected(error_of({.status = 500, .body = to_text(json{{"error", job.value("error", json())}})}));
}

Result<void> submit(const SubmitOptions& options, const CommonOptions& common) {
  json job = TRY(ask(options.client, "POST", "/v1/jobs", TRY(job_body(options))));
  const std::string id = job.value("id", "");
  if (options.wait) block_stop_signals();
  while (options.wait && !has_ended(job)) {
    if (await_stop_signal(kPoll))
      return fail(ErrorCode::kCancelled, "interrupted; the job goes on: `runahead jobs " + id + "` shows it");
    job = TRY(ask(options.client, "GET", "/v1/jobs/" + id));
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

Result<void> cancel(const JobsOptions& options, const CommonOptions& common) {
  return show_job(TRY(ask(options.client, "DELETE", "/v1/jobs/" + options.id)), common);
}

std::string check_id(const std::string& id) {
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; };
  return !id.empty() && std::ranges::all_of(id, is_plain) ? std::string() : "'" + id + "' is no id of a job";
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

  const auto ended = std::make_shared<JobsOptions>();
  command = line.add("cancel", "end a job of a running cluster",
                     [ended](const CommonOptions& common) { return cancel(*ended, common); });
  add_client_flags(*command, ended->client);
  command->add_option("id", ended->id, "of the job")->required()->check(check_id);
}

}  // namespace runahead
