#include "services/gateway/responses/response_body.h"

#include "base/json_text.h"
#include "services/gateway/api_time.h"
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

// Behind "resp_".
std::string own_part(const std::string& response_id) {
  const size_t prefix = response_id.find('_');
  return response_id.substr(prefix == std::string::npos ? 0 : prefix + 1);
}

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

std::string item_id(const std::string& response_id, size_t index, bool is_call) {
  const std::string own = own_part(response_id);
  if (is_call) return "fc_" + own + "_" + std::to_string(index);
  return index == 0 ? "msg_" + own : "msg_" + own + "_out" + std::to_string(index);
}

json text_part(const std::string& text, json logprobs) {
  json part = {{"type", "output_text"}, {"text", text}, {"annotations", json::array()}};
  part["logprobs"] = logprobs.is_null() ? json::array() : std::move(logprobs);
  return part;
}

json output_item(const std::string& response_id, size_t index, const OutputPart& part, const char* status) {
  const bool begun = status == std::string_view("in_progress");
  json item = {{"id", item_id(response_id, index, part.call.has_value())}, {"status", status}};
  if (part.call) {
    item["type"] = "function_call";
    item["call_id"] = part.call->id;
    item["name"] = part.call->name;
    item["arguments"] = begun ? "" : part.call->arguments;
  } else {
    item["type"] = "message";
    item["role"] = "assistant";
    item["content"] = json::array();
    if (!begun) item["content"].push_back(text_part(part.text, nullptr));
  }
  return item;
}

json output_items(const JobView& job, const KeptResponse& kept, const TextCodec& codec) {
  json items = json::array();
  if (!has_output(job)) return items;
  const std::vector<OutputPart> parts = output_of(job, kept.text, codec);
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool whole = i + 1 < parts.size() || status_of(job) == "completed";
    json item = output_item(job.head.id, i, parts[i], whole ? "completed" : "incomplete");
    if (kept.text.logprobs && !parts[i].call)
      item["content"][0]["logprobs"] = chat_logprobs(parts[i].tokens, codec)["content"];
    items.push_back(std::move(item));
  }
  return items;
}

json response_json(const JobView& job, const TextCodec& codec) {
  const KeptResponse kept = kept_response(job.client_json);
  const std::string_view status = status_of(job);
  json body = {{"id", job.head.id},
               {"object", "response"},
               {"created_at", job.head.created_unix_ms / 1000},
               {"completed_at", seconds_or_null(status == "completed" ? job.head.ended_unix_ms : 0)},
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
  body["output"] = output_items(job, kept, codec);
  return body;
}

json input_items(const std::string& response_id, const KeptResponse& kept) {
  json items = kept.input;
  for (size_t i = 0; i < items.size(); ++i) {
    items[i]["id"] = "msg_" + own_part(response_id) + "_" + std::to_string(i);
    items[i]["status"] = "completed";
  }
  return items;
}

}  // namespace runahead
