#include "services/gateway/messages_body.h"

#include <algorithm>
#include <array>

#include "base/limits.h"
#include "services/gateway/message_tools.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::string_view_literals;

// Without effect here: who asked, where and how fast Anthropic's own service computes; where a cache may cut.
constexpr std::array kIgnoredOfMessages = {"metadata"sv, "service_tier"sv, "inference_geo"sv,
                                           "speed"sv,    "diagnostics"sv,  "cache_control"sv};
constexpr std::array kUnsupported = {"mcp_servers"sv, "container"sv, "context_management"sv, "output_config"sv};

// What both APIs call the same, with the same meaning.
constexpr std::array kSame = {"model"sv, "max_tokens"sv, "stream"sv,     "top_p"sv,
                              "top_k"sv, "runahead"sv,   "cache_salt"sv, "seed"sv};

void take_temperature(JsonReader& reader, json& chat) {
  if (const auto temperature = reader.number("temperature", 0, 1)) chat["temperature"] = *temperature;
}

void take_stop_sequences(JsonReader& reader, json& chat) {
  const json* list = reader.array("stop_sequences", static_cast<size_t>(limits::kStopStringsMax));
  if (list == nullptr) return;
  for (const json& entry : *list) {
    const bool fits = entry.is_string() && !entry.get_ref<const std::string&>().empty() &&
                      entry.get_ref<const std::string&>().size() <= limits::kStopStringBytesMax;
    if (!fits) return reader.error("stop_sequences", "must hold strings of 1 to 1024 bytes");
  }
  chat["stop"] = *list;
}

void take_thinking(JsonReader& reader, std::optional<Error>& error) {
  const json* thinking = reader.object("thinking");
  if (thinking == nullptr) return;
  JsonReader inner(*thinking, "thinking", error);
  if (inner.string("type", kNameBytesMax).value_or("") != "disabled")
    inner.error("type", "other than 'disabled' is not supported", ErrorCode::kUnsupported);
}

// {"role", "content"} of user and assistant, checked further as a chat's; `system` before them.
json chat_messages(JsonReader& reader, std::optional<Error>& error) {
  json messages = json::array();
  const json* system = reader.take("system");
  if (system != nullptr && !system->is_string() && !system->is_array())
    return reader.error("system", "must be text, or a list of blocks"), messages;
  if (system != nullptr && !says_nothing(*system)) messages.push_back({{"role", "system"}, {"content", *system}});
  const json* list = reader.array("messages", limits::kMessagesMax - 1);
  if (list == nullptr || list->empty()) return reader.error("messages", "is missing or empty"), messages;
  for (size_t i = 0; i < list->size(); ++i) {
    const json& entry = (*list)[i];
    const std::string field = "messages[" + std::to_string(i) + "]";
    if (!entry.is_object()) return reader.error(field, "must be an object with role and content"), messages;
    const json role = entry.contains("role") ? entry["role"] : json();
    if (role != "user" && role != "assistant")
      return reader.error(field + ".role", "must be user or assistant"), messages;
    add_chat_messages(entry, field, messages, error);
  }
  if (list->back()["role"] != "user")
    reader.error("messages", "must end with one of the user: an answer that is begun is not continued",
                 ErrorCode::kUnsupported);
  return messages;
}

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

Result<GenerationRequest> parse_messages(const json& body, const ServedModel& model, MessagesUse use) {
  std::optional<Error> error;
  JsonReader reader(body, "", error);
  json chat = json::object();
  for (const std::string_view field : kSame)
    if (const json* value = reader.take(field)) chat[field] = *value;
  if (use == MessagesUse::kAnswer && !chat.contains("max_tokens")) reader.error("max_tokens", "is missing");
  if (use == MessagesUse::kCountTokens) chat["max_tokens"] = 1;
  take_temperature(reader, chat);
  take_stop_sequences(reader, chat);
  take_thinking(reader, error);
  chat["messages"] = chat_messages(reader, error);
  take_message_tools(reader, chat, error);
  reader.ignore(kIgnoredOfMessages);
  reader.unsupported(kUnsupported);
  reader.finish();
  if (error) return std::unexpected(std::move(*error));
  return parse_generation(Endpoint::kChat, chat, model);
}

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
