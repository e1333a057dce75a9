#include "services/commands/api_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/json_text.h"
#include "base/log.h"
#include "services/cluster/local_cluster.h"
#include "services/commands/output.h"

namespace runahead {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kPoll{300};  // of a job that is waited for

}  // namespace

void add_api_key_flag(CLI::App& command, std::string& api_key) {
  command.add_option("--api-key", api_key,
                     "key of the API, better in RUNAHEAD_API_KEY, which no list of processes shows; default: none");
}

void add_client_flags(CLI::App& command, ClientOptions& options) {
  command.add_option("--url", options.url, "host:port of the API");
  add_api_key_flag(command, options.api_key);
}

Result<json> ask(const ClientOptions& options, const std::string& method, const std::string& target, const json& body,
                 std::chrono::milliseconds timeout) {
  const HttpAnswer answer = TRY(HttpClient(options.url, timeout, options.api_key)
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

bool is_away(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded;
}

bool has_ended(const json& job) {
  const std::string status = job.value("status", "");
  return status != "queued" && status != "running";
}

std::string answer_of(const json& job) {
  const json result = job.value("result", json());
  if (!result.is_object() || result.value("choices", json::array()).empty()) return {};
  const json& choice = result["choices"][0];
  if (!choice.contains("message")) return choice.value("text", "");
  const json& message = choice["message"];
  const json content = message.value("content", json());  // null: nothing but calls
  std::string answer = content.is_string() ? content.get<std::string>() : "";
  for (const json& call : message.value("tool_calls", json::array())) {
    if (!answer.empty()) answer += '\n';
    answer += to_text(call.at("function"), -1);
  }
  return answer;
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
  return std::unexpected(error_of_job(job.value("error", json())));
}

Error error_of_job(const json& error) { return error_of({.status = 500, .body = to_text(json{{"error", error}})}); }

std::string check_id(const std::string& id) {
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; };
  return !id.empty() && std::ranges::all_of(id, is_plain) ? std::string()
                                                          : "'" + id + "' is no id of a job or a request";
}

Result<json> await_job(const ClientOptions& options, const std::string& id, double timeout_s) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  auto answered = begin;
  while (true) {
    Result<json> job = ask(options, "GET", "/v1/jobs/" + id);
    const auto now = Clock::now();
    if (job && has_ended(*job)) return job;
    if (job) answered = now;
    else if (!is_away(job.error()) || answered == begin || now - answered > kServerAwayMax) return job;
    if (timeout_s > 0 && std::chrono::duration<double>(now - begin).count() >= timeout_s)
      return fail(ErrorCode::kDeadlineExceeded,
                  fmt::format("the job has not ended within {:g} s; it goes on: `runahead wait {}` waits again",
                              timeout_s, id));
    if (await_stop_signal(kPoll))
      return fail(ErrorCode::kCancelled, "interrupted; the job goes on: `runahead jobs " + id + "` shows it");
  }
}

}  // namespace runahead
