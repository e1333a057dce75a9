#include "services/gateway/responses/response_request.h"

#include <array>
#include <utility>

#include "base/limits.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::string_view_literals;

constexpr size_t kNameBytesMax = 1024;
constexpr size_t kIdBytesMax = 64;
constexpr size_t kMetadataMax = 16, kMetadataKeyMax = 64, kMetadataValueMax = 512;  // OpenAI's
constexpr int64_t kTokensMax = std::numeric_limits<int32_t>::max();

constexpr std::array kSame = {"model"sv, "stream"sv,   "temperature"sv, "top_p"sv, "top_k"sv,
                              "min_p"sv, "runahead"sv, "cache_salt"sv,  "seed"sv};
// Shown again, without effect here: who asked, and how OpenAI's own service computes.
constexpr std::array kEchoed = {"user"sv, "safety_identifier"sv, "prompt_cache_key"sv, "prompt_cache_retention"sv};
constexpr std::array kIgnored = {"service_tier"sv, "parallel_tool_calls"sv, "max_tool_calls"sv};
constexpr std::array kUnsupported = {"tools"sv, "prompt"sv, "conversation"sv, "context_management"sv, "moderation"sv};

// One part of a content. `kind`: "input_text" or "output_text", as the role has it.
json take_part(const json& part, const std::string& path, std::string_view kind, std::optional<Error>& error) {
  json taken = {{"type", kind}, {"text", ""}};
  if (!part.is_object()) {
    if (!error) error = Error{ErrorCode::kInvalidArgument, "'" + path + "' must be an object with type and text", path};
    return taken;
  }
  JsonReader reader(part, path, error);
  const std::string type = reader.string("type", kNameBytesMax).value_or("");
  const bool is_text = type == "input_text" || type == "output_text" || type == "text" || type == "refusal";
  if (!is_text)
    reader.error("type", "must be input_text or output_text: this model reads text alone", ErrorCode::kUnsupported);
  const std::string field = type == "refusal" ? type : "text";
  const auto text = reader.string(field, limits::kJsonBodyBytesMax);
  if (!text) reader.error(field, "is missing");
  constexpr std::array kNoText = {"annotations"sv, "logprobs"sv, "prompt_cache_breakpoint"sv};
  reader.ignore(kNoText);
  reader.finish();
  taken["text"] = text.value_or("");
  return taken;
}

json message_item(std::string_view role, json content) {
  return {{"type", "message"}, {"role", role}, {"content", std::move(content)}};
}

json text_content(std::string_view kind, std::string text) {
  return json::array({{{"type", kind}, {"text", std::move(text)}}});
}

json take_item(const json& entry, const std::string& path, std::optional<Error>& error) {
  JsonReader item(entry, path, error);
  const std::string type = item.string("type", kNameBytesMax).value_or("message");
  if (type != "message") {
    item.error("type", "must be message, the only kind of item that is supported", ErrorCode::kUnsupported);
    return {};
  }
  const std::string role = item.string("role", kNameBytesMax).value_or("");
  if (role != "user" && role != "assistant" && role != "system" && role != "developer")
    item.error("role", "must be user, assistant, system or developer");
  const std::string_view kind = role == "assistant" ? "output_text" : "input_text";
  json parts = json::array();
  const json* content = item.take("content");
  if (content == nullptr) {
    item.error("content", "is missing");
  } else if (content->is_string()) {
    parts = text_content(kind, content->get<std::string>());
  } else if (!content->is_array() || content->size() > static_cast<size_t>(limits::kMessagesMax)) {
    item.error("content", "must be a string or a list of at most 4096 parts");
  } else {
    for (size_t i = 0; i < content->size(); ++i)
      parts.push_back(take_part((*content)[i], path + ".content[" + std::to_string(i) + "]", kind, error));
  }
  constexpr std::array kOfAnswers = {"id"sv, "status"sv, "phase"sv};  // what an item of ours carries when it comes back
  item.ignore(kOfAnswers);
  item.finish();
  return message_item(role, std::move(parts));
}

// A text is a message of the user.
json take_input(JsonReader& reader, std::optional<Error>& error) {
  json items = json::array();
  const json* input = reader.take("input");
  if (input == nullptr || (input->is_array() && input->empty())) {
    reader.error("input", "is missing or empty");
  } else if (input->is_string()) {
    items.push_back(message_item("user", text_content("input_text", input->get<std::string>())));
  } else if (!input->is_array() || input->size() > static_cast<size_t>(limits::kMessagesMax)) {
    reader.error("input", "must be a string or a list of at most 4096 items");
  } else {
    for (size_t i = 0; i < input->size() && !error; ++i) {
      const std::string path = "input[" + std::to_string(i) + "]";
      if (!(*input)[i].is_object()) return reader.error(path, "must be an object with role and content"), items;
      items.push_back(take_item((*input)[i], path, error));
    }
  }
  return items;
}

json take_metadata(JsonReader& reader) {
  const json* metadata = reader.object("metadata");
  if (metadata == nullptr) return json::object();
  bool fits = metadata->size() <= kMetadataMax;
  for (const auto& [key, value] : metadata->items())
    fits = fits && key.size() <= kMetadataKeyMax && value.is_string() &&
           value.get_ref<const std::string&>().size() <= kMetadataValueMax;
  if (!fits) reader.error("metadata", "must be at most 16 strings of 512 bytes, their names of 64 bytes");
  return fits ? *metadata : json::object();
}

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
    if (!schema.string("name", kMetadataKeyMax)) schema.error("name", "is missing, or longer than 64 bytes");
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
  const json* include = reader.array("include", kMetadataMax);
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
  const json* choice = reader.take("tool_choice");
  if (choice != nullptr && *choice != "none" && *choice != "auto")
    reader.error("tool_choice", "is not supported, as tools are not", ErrorCode::kUnsupported);
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
  for (const std::string_view field : kSame)
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
}

json chat_message(const json& item) {
  std::string text;
  for (const json& part : item["content"]) text += part["text"].get_ref<const std::string&>();
  return {{"role", item["role"]}, {"content", std::move(text)}};
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
  request.input = take_input(reader, error);
  reader.ignore(kIgnored);
  reader.unsupported(kUnsupported);
  reader.finish();
  if (error) return std::unexpected(std::move(*error));
  TRY(response_chat(request, json::array(), model));  // what a chat says of the rest
  request.stream = request.chat.value("stream", false);
  return request;
}

Result<GenerationRequest> response_chat(const ResponseRequest& request, const json& earlier, const ServedModel& model) {
  json chat = request.chat;
  json& messages = chat["messages"] = json::array();
  if (!request.instructions.empty()) messages.push_back({{"role", "system"}, {"content", request.instructions}});
  for (const json* items : {&earlier, &request.input})
    for (const json& item : *items) messages.push_back(chat_message(item));
  auto parsed = parse_generation(Endpoint::kChat, chat, model);
  if (!parsed) return std::unexpected(in_words_of_responses(std::move(parsed.error())));
  if (request.structured) parsed->structured_at = "/text/format";
  return parsed;
}

Error in_words_of_responses(Error error) {
  if (error.param == "messages") error.param = "input";
  if (error.param == "max_tokens") error.param = "max_output_tokens";
  return error;
}

}  // namespace runahead
