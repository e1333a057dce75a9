#include "services/gateway/request/response_request.h"

#include <array>
#include <utility>

#include "base/limits.h"
#include "services/gateway/request/response_items.h"
#include "services/gateway/request/structured_output.h"
#include "services/gateway/request/tool_request.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::string_view_literals;

constexpr size_t kIdBytesMax = 64;
constexpr size_t kIncludeMax = 16;  // OpenAI's
constexpr int64_t kTokensMax = std::numeric_limits<int32_t>::max();

constexpr std::array kSameOfResponses = {"model"sv, "stream"sv,   "temperature"sv, "top_p"sv, "top_k"sv,
                                         "min_p"sv, "runahead"sv, "cache_salt"sv,  "seed"sv};
// Shown again, without effect here: who asked, and how OpenAI's own service computes.
constexpr std::array kEchoed = {"user"sv, "safety_identifier"sv, "prompt_cache_key"sv, "prompt_cache_retention"sv};
constexpr std::array kIgnoredOfResponses = {"service_tier"sv, "max_tool_calls"sv};
constexpr std::array kUnsupportedOfResponses = {"prompt"sv, "conversation"sv, "context_management"sv, "moderation"sv};

// {"format": {"type", "name", "schema"}}: the schema lies beside the name, and not in an object of its own as in a chat.
json take_text(JsonReader& reader, ResponseRequest& request, std::optional<Error>& error) {
  json shown = {{"format", {{"type", "text"}}}};
  const json* text = reader.object("text");
  if (text == nullptr) return shown;
  JsonReader inner(*text, "text", error);
  const auto verbosity = inner.string("verbosity", kNameBytesMax);
  if (verbosity && *verbosity != "medium")
    inner.error("verbosity", "other than 'medium' is not supported: the model has no such setting",
                ErrorCode::kUnsupported);
  const json* format = inner.object("format");
  inner.finish();
  if (format == nullptr) return shown;
  JsonReader schema(*format, "text.format", error);
  const std::string type = schema.string("type", kNameBytesMax).value_or("");
  if (type != "text" && type != "json_object" && type != "json_schema")
    schema.error("type", "must be text, json_object or json_schema", ErrorCode::kUnsupported);
  if (type == "json_schema") {
    if (!schema.string("name", kSchemaNameBytesMax)) schema.error("name", "is missing, or longer than 64 bytes");
    schema.string("description", limits::kJsonBodyBytesMax);
    schema.boolean("strict");  // an answer is always of the schema
    if (schema.object("schema") == nullptr) schema.error("schema", "is missing");
  }
  schema.finish();
  request.structured = type == "json_object" || type == "json_schema";
  shown["format"] = *format;
  return shown;
}

// Log-probabilities come with the text where `include` asks for them.
void take_logprobs(JsonReader& reader, ResponseRequest& request) {
  const json* include = reader.array("include", kIncludeMax);
  bool wanted = false;
  for (const json& entry : include != nullptr ? *include : json::array()) {
    if (entry != "message.output_text.logprobs")
      return reader.error("include", "knows message.output_text.logprobs alone", ErrorCode::kUnsupported);
    wanted = true;
  }
  const auto top = reader.integer("top_logprobs", 0, limits::kTopLogprobsMax);
  request.shown["top_logprobs"] = top.value_or(0);
  if (!wanted && top.value_or(0) == 0) return;
  request.chat["logprobs"] = true;
  request.chat["top_logprobs"] = top.value_or(0);
}

// What has one value that works here.
void take_fixed(JsonReader& reader, std::optional<Error>& error) {
  const auto truncation = reader.string("truncation", kNameBytesMax);
  if (truncation && *truncation != "disabled")
    reader.error("truncation", "other than 'disabled' is not supported: nothing is cut in silence",
                 ErrorCode::kUnsupported);
  if (const json* reasoning = reader.object("reasoning")) {
    JsonReader inner(*reasoning, "reasoning", error);
    constexpr std::array kNone = {"effort"sv, "summary"sv, "generate_summary"sv};
    inner.unsupported(kNone);
    inner.finish();
  }
  if (const json* options = reader.object("stream_options")) {
    JsonReader inner(*options, "stream_options", error);
    inner.boolean("include_obfuscation");  // padding against traffic analysis: not built, and changes no text
    inner.finish();
  }
}

void take_memory(JsonReader& reader, ResponseRequest& request) {
  request.store = reader.boolean("store").value_or(true);
  request.background = reader.boolean("background").value_or(false);
  request.previous_id = reader.string("previous_response_id", kIdBytesMax).value_or("");
  if (request.background && !request.store)
    reader.error("background", "needs \"store\": true, for the answer is fetched later");
  request.shown["store"] = request.store;
  request.shown["background"] = request.background;
  request.shown["previous_response_id"] = request.previous_id.empty() ? json(nullptr) : json(request.previous_id);
}

void take_shown(JsonReader& reader, ResponseRequest& request) {
  json& shown = request.shown;
  for (const std::string_view field : kSameOfResponses)
    if (const json* value = reader.take(field)) request.chat[field] = *value;
  for (const std::string_view field : {"temperature"sv, "top_p"sv})
    shown[field] = request.chat.contains(field) ? request.chat[field] : json(nullptr);
  for (const std::string_view field : kEchoed)
    if (const auto value = reader.string(field, kNameBytesMax)) shown[field] = *value;
  request.instructions = reader.string("instructions", limits::kJsonBodyBytesMax).value_or("");
  shown["instructions"] = request.instructions.empty() ? json(nullptr) : json(request.instructions);
  const auto tokens = reader.integer("max_output_tokens", 1, kTokensMax);
  if (tokens) request.chat["max_tokens"] = *tokens;
  shown["max_output_tokens"] = tokens ? json(*tokens) : json(nullptr);
  shown["metadata"] = take_metadata(reader);
  if (shown["metadata"].is_null()) shown["metadata"] = json::object();
}

// A tool has in itself what a chat's has in an object of its own.
json chat_function(const json& tool, const std::string& path, std::optional<Error>& error) {
  if (!tool.is_object()) {
    if (!error) error = Error{ErrorCode::kInvalidArgument, "'" + path + "' must be an object with type and name", path};
    return nullptr;
  }
  json function = tool;
  const json type = tool.contains("type") ? tool["type"] : json("function");
  function.erase("type");
  if (type != "function" && !error)
    error = Error{ErrorCode::kUnsupported, "'" + path + ".type' must be function, the only kind of tool that is built",
                  path + ".type"};
  return {{"type", "function"}, {"function", std::move(function)}};
}

void take_response_tools(JsonReader& reader, ResponseRequest& request, std::optional<Error>& error) {
  const json* tools = reader.array("tools", kToolsMax);
  request.shown["tools"] = tools != nullptr ? *tools : json::array();
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i)
    request.chat["tools"].push_back(chat_function((*tools)[i], "tools[" + std::to_string(i) + "]", error));
  if (const json* choice = reader.take("tool_choice")) {
    request.shown["tool_choice"] = *choice;
    request.chat["tool_choice"] = choice->is_object() ? chat_function(*choice, "tool_choice", error) : *choice;
  }
  if (const auto parallel = reader.boolean("parallel_tool_calls")) {
    request.shown["parallel_tool_calls"] = *parallel;
    request.chat["parallel_tool_calls"] = *parallel;
  }
}

// "tools[0].function.name" -> "tools[0].name".
void without_function(std::string& path) {
  constexpr std::string_view kInner = ".function";
  for (size_t at = path.find(kInner); at != std::string::npos; at = path.find(kInner, at))
    path.erase(at, kInner.size());
}

}  // namespace

Result<ResponseRequest> parse_response(const json& body, const ServedModel& model) {
  ResponseRequest request;
  request.chat = request.shown = json::object();
  std::optional<Error> error;
  JsonReader reader(body, "", error);
  take_shown(reader, request);
  take_memory(reader, request);
  take_logprobs(reader, request);
  request.shown["text"] = take_text(reader, request, error);
  take_fixed(reader, error);
  take_response_tools(reader, request, error);
  request.input = take_input(reader, error);
  reader.ignore(kIgnoredOfResponses);
  reader.unsupported(kUnsupportedOfResponses);
  reader.finish();
  if (error) return std::unexpected(std::move(*error));
  // What a chat says of the rest; outputs of calls that were made before are judged with the conversation.
  if (request.previous_id.empty()) TRY(response_chat(request, json::array(), model));
  const auto stream = request.chat.find("stream");
  request.stream = stream != request.chat.end() && *stream == true;
  return request;
}

Result<GenerationRequest> response_chat(const ResponseRequest& request, const json& earlier, const ServedModel& model) {
  json chat = request.chat;
  if (request.structured)
    chat["response_format"] = {{"type", "json_object"}};  // what goes with it; the schema is read in its place
  json& messages = chat["messages"] = json::array();
  if (!request.instructions.empty()) messages.push_back({{"role", "system"}, {"content", request.instructions}});
  add_messages(earlier, messages);
  add_messages(request.input, messages);
  auto parsed = parse_generation(Endpoint::kChat, chat, model);
  if (!parsed) return std::unexpected(in_words_of_responses(std::move(parsed.error())));
  if (request.structured) parsed->structured_at = "/text/format";
  return parsed;
}

Error in_words_of_responses(Error error) {
  if (error.param.starts_with("messages")) error.param = "input";
  if (error.param == "response_format") error.param = "text.format";
  if (error.param.starts_with("tool")) {
    without_function(error.param);
    without_function(error.message);
  }
  if (error.param == "max_tokens") error.param = "max_output_tokens";
  return error;
}

}  // namespace runahead
