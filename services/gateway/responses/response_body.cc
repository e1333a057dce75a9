#include "services/gateway/responses/response_body.h"

#include "base/json_text.h"
#include "services/gateway/trace_routes.h"

namespace runahead {
namespace {

using nlohmann::json;

std::string_view status_of(const JobView& job) {
  switch (job.head.status) {
    case JobStatus::kQueued:
      return "queued";
    case JobStatus::kRunning:
      return "in_progress";
    case JobStatus::kFailed:
      return "failed";
    case JobStatus::kCancelled:
      return "cancelled";
    case JobStatus::kSucceeded:
      break;
  }
  const bool cut = job.result && job.result->finished && job.result->finished->reason == FinishReason::kLength;
  return cut ? "incomplete" : "completed";
}

// By OpenAI's few codes: clients parse them as an enumeration.
json error_of(const JobHead& head) {
  if (!head.error) return nullptr;
  const int status = http_status(head.error->code);
  const char* code = status == 429 ? "rate_limit_exceeded" : status < 500 ? "invalid_prompt" : "server_error";
  return {{"code", code}, {"message", head.error->message}};
}

json usage_of(const JobView& job) {
  if (!has_ended(job.head.status)) return nullptr;
  const TtftReport* report = job.result && job.result->finished ? &job.result->finished->report : nullptr;
  json usage = {{"input_tokens", job.head.prompt_tokens},
                {"input_tokens_details",
                 {{"cached_tokens", report != nullptr ? report->cached_tokens : 0},
                  {"cache_write_tokens", report != nullptr ? report->cache_write_tokens : 0}}},
                {"output_tokens", job.head.completion_tokens},
                {"output_tokens_details", {{"reasoning_tokens", 0}}},
                {"total_tokens", int64_t{job.head.prompt_tokens} + job.head.completion_tokens}};
  if (report != nullptr) usage["runahead"] = report_json(*report);
  return usage;
}

// Whether there is anything of an answer to show.
bool has_output(const JobView& job) {
  return job.result && (job.head.status == JobStatus::kSucceeded || !job.result->tokens.empty());
}

json seconds_or_null(bool known, int64_t unix_ms) { return known ? json(unix_ms / 1000) : json(nullptr); }

}  // namespace

std::string client_json_of(const JobText& text, const ResponseRequest& request) {
  json stored = to_json(text);
  stored["response"] = {{"shown", request.shown}, {"input", request.input}};
  return to_text(stored);
}

KeptResponse kept_response(const std::string& client_json) {
  KeptResponse kept{.text = job_text(client_json)};
  const json stored = json::parse(client_json, nullptr, false);
  const auto response = stored.is_object() ? stored.find("response") : stored.end();
  if (!stored.is_object() || response == stored.end()) return kept;
  kept.shown = response->value("shown", json::object());
  kept.input = response->value("input", json::array());
  return kept;
}

std::string item_id(const std::string& response_id) {
  const size_t prefix = response_id.find('_');
  return "msg_" + response_id.substr(prefix == std::string::npos ? 0 : prefix + 1);
}

json text_part(const std::string& text) {
  return {{"type", "output_text"}, {"text", text}, {"annotations", json::array()}, {"logprobs", json::array()}};
}

json begun_item(const std::string& response_id) {
  return {{"type", "message"},
          {"id", item_id(response_id)},
          {"status", "in_progress"},
          {"role", "assistant"},
          {"content", json::array()}};
}

json output_item(const JobView& job, const KeptResponse& kept, const TextCodec& codec) {
  json item = begun_item(job.head.id);
  if (!has_output(job)) return item;
  const JobAnswer answer = job_answer(job, kept.text, codec);
  json part = text_part(answer.choice.text);
  if (kept.text.logprobs) part["logprobs"] = chat_logprobs(answer.choice.tokens, codec)["content"];
  item["status"] = status_of(job) == "completed" ? "completed" : "incomplete";
  item["content"].push_back(std::move(part));
  return item;
}

json response_json(const JobView& job, const TextCodec& codec) {
  const KeptResponse kept = kept_response(job.client_json);
  const std::string_view status = status_of(job);
  json body = {{"id", job.head.id},
               {"object", "response"},
               {"created_at", job.head.created_unix_ms / 1000},
               {"completed_at", seconds_or_null(status == "completed", job.head.ended_unix_ms)},
               {"status", status},
               {"model", kept.text.model},
               {"output", json::array()},
               {"error", error_of(job.head)},
               {"incomplete_details", nullptr},
               {"usage", usage_of(job)},
               {"parallel_tool_calls", true},
               {"tool_choice", "auto"},
               {"tools", json::array()},
               {"max_tool_calls", nullptr},
               {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
               {"service_tier", "default"},
               {"truncation", "disabled"}};
  body.update(kept.shown);
  if (const std::string trace_id = trace_of_job(job.client_json).trace_id; !trace_id.empty())
    body["trace_id"] = trace_id;
  if (status == "incomplete") body["incomplete_details"] = {{"reason", "max_output_tokens"}};
  if (has_output(job)) body["output"].push_back(output_item(job, kept, codec));
  return body;
}

json input_items(const std::string& response_id, const KeptResponse& kept) {
  json items = kept.input;
  for (size_t i = 0; i < items.size(); ++i) {
    items[i]["id"] = item_id(response_id) + "_" + std::to_string(i);
    items[i]["status"] = "completed";
  }
  return items;
}

}  // namespace runahead
