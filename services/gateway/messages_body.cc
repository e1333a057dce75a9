#include "services/gateway/messages_body.h"

#include <algorithm>

namespace runahead {
namespace {

using nlohmann::json;

int64_t input_tokens(const MessageHead& head, const ChoiceResult& result) {
  if (!result.report) return head.prompt_tokens;
  const int64_t rest = head.prompt_tokens - result.report->cached_tokens - result.report->cache_write_tokens;
  return std::max<int64_t>(rest, 0);
}

json usage(const MessageHead& head, const ChoiceResult& result) {
  return {{"input_tokens", input_tokens(head, result)},
          {"cache_read_input_tokens", result.report ? result.report->cached_tokens : 0},
          {"cache_creation_input_tokens", result.report ? result.report->cache_write_tokens : 0},
          {"output_tokens", result.completion_tokens}};
}

const char* stop_reason(std::string_view finish_reason) {
  if (finish_reason == "tool_calls") return "tool_use";
  return finish_reason == "length" ? "max_tokens" : "end_turn";
}

json with_end(json object, const ChoiceResult& result) {
  const bool by_string = !result.stop_string.empty();
  object["stop_reason"] = by_string ? "stop_sequence" : stop_reason(result.finish_reason);
  object["stop_sequence"] = by_string ? json(result.stop_string) : json(nullptr);
  return object;
}

json message(const MessageHead& head, json content) {
  return {{"id", head.id},
          {"type", "message"},
          {"role", "assistant"},
          {"model", head.model},
          {"content", std::move(content)}};
}

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

// A call that max_tokens has cut has no object for an input yet, and one may nest deeper than we read: then its text is given.
json block_json(const MessageBlock& block) {
  if (!block.call) return {{"type", "text"}, {"text", block.text}};
  const ToolCall& call = *block.call;
  Result<ParsedJson> input = parse_json_object(call.arguments.empty() ? "{}" : call.arguments);
  if (!input) return {{"type", "text"}, {"text", call.name + " " + call.arguments}};
  return {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", std::move(input->value())}};
}

}  // namespace

json message_body(const MessageHead& head, const std::vector<MessageBlock>& blocks, const ChoiceResult& result) {
  json content = json::array();
  for (const MessageBlock& block : blocks) content.push_back(block_json(block));
  json body = with_end(message(head, std::move(content)), result);
  body["usage"] = usage(head, result);
  return body;
}

json message_start(const MessageHead& head) {
  json begun = message(head, json::array());
  begun["stop_reason"] = begun["stop_sequence"] = nullptr;
  begun["usage"] = usage(head, {});
  return {{"type", "message_start"}, {"message", std::move(begun)}};
}

json content_block_start(int32_t index, const MessageBlock& block) {
  return {{"type", "content_block_start"}, {"index", index}, {"content_block", block_json(block)}};
}

json text_delta(int32_t index, const std::string& text) {
  return {{"type", "content_block_delta"}, {"index", index}, {"delta", {{"type", "text_delta"}, {"text", text}}}};
}

json input_json_delta(int32_t index, const std::string& json_text) {
  return {{"type", "content_block_delta"},
          {"index", index},
          {"delta", {{"type", "input_json_delta"}, {"partial_json", json_text}}}};
}

json content_block_stop(int32_t index) { return {{"type", "content_block_stop"}, {"index", index}}; }

json message_delta(const MessageHead& head, const ChoiceResult& result) {
  return {{"type", "message_delta"}, {"delta", with_end(json::object(), result)}, {"usage", usage(head, result)}};
}

json message_stop() { return {{"type", "message_stop"}}; }

json message_error(const Error& error) {
  return {{"type", "error"}, {"error", {{"type", error_type(http_status(error.code))}, {"message", error.message}}}};
}

}  // namespace runahead
