#include "services/gateway/request/response_items.h"

#include <array>
#include <utility>

#include "base/limits.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::string_view_literals;

// What an item of ours carries when it comes back.
constexpr std::array kOfAnswers = {"id"sv, "status"sv, "phase"sv};

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

// A text, or parts of it.
json take_content(JsonReader& item, std::string_view field, std::string_view kind, std::optional<Error>& error) {
  json parts = json::array();
  const json* content = item.take(field);
  if (content == nullptr) {
    item.error(field, "is missing");
  } else if (content->is_string()) {
    parts = text_content(kind, content->get<std::string>());
  } else if (!content->is_array() || content->size() > static_cast<size_t>(limits::kMessagesMax)) {
    item.error(field, "must be a string or a list of at most 4096 parts");
  } else {
    const std::string path = item.path_of(field);
    for (size_t i = 0; i < content->size(); ++i)
      parts.push_back(take_part((*content)[i], path + "[" + std::to_string(i) + "]", kind, error));
  }
  return parts;
}

json take_message(JsonReader& item, std::optional<Error>& error) {
  const std::string role = item.string("role", kNameBytesMax).value_or("");
  if (role != "user" && role != "assistant" && role != "system" && role != "developer")
    item.error("role", "must be user, assistant, system or developer");
  return message_item(role, take_content(item, "content", role == "assistant" ? "output_text" : "input_text", error));
}

std::string take_call_id(JsonReader& item) {
  const auto id = item.string("call_id", kNameBytesMax);
  if (!id || id->empty()) item.error("call_id", "is missing");
  return id.value_or("");
}

json take_call(JsonReader& item) {
  json call = {{"type", "function_call"}, {"call_id", take_call_id(item)}};
  const auto name = item.string("name", kNameBytesMax);
  if (!name) item.error("name", "is missing");
  call["name"] = name.value_or("");
  const std::string arguments = item.string("arguments", limits::kJsonBodyBytesMax).value_or("");
  const bool fits = arguments.empty() || parse_json_object(arguments).has_value();
  if (!fits) item.error("arguments", "must be the text of a JSON object");
  call["arguments"] = arguments;
  return call;
}

json take_output(JsonReader& item, std::optional<Error>& error) {
  json output = {{"type", "function_call_output"}, {"call_id", take_call_id(item)}};
  std::string text;
  for (const json& part : take_content(item, "output", "input_text", error)) text += part["text"].get<std::string>();
  output["output"] = std::move(text);
  return output;
}

json take_item(const json& entry, const std::string& path, std::optional<Error>& error) {
  JsonReader item(entry, path, error);
  const std::string type = item.string("type", kNameBytesMax).value_or("message");
  json taken;
  if (type == "message") taken = take_message(item, error);
  else if (type == "function_call") taken = take_call(item);
  else if (type == "function_call_output") taken = take_output(item, error);
  else item.error("type", "must be message, function_call or function_call_output", ErrorCode::kUnsupported);
  item.ignore(kOfAnswers);
  item.finish();
  return taken;
}

// The assistant's message that calls belong to.
json& calling_message(json& messages) {
  const bool follows = !messages.empty() && messages.back()["role"] == "assistant";
  if (!follows) messages.push_back({{"role", "assistant"}});
  return messages.back();
}

}  // namespace

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

void add_messages(const json& items, json& messages) {
  for (const json& item : items) {
    if (item["type"] == "function_call") {
      json call = {{"id", item["call_id"]}, {"type", "function"}};
      call["function"] = {{"name", item["name"]}, {"arguments", item["arguments"]}};
      calling_message(messages)["tool_calls"].push_back(std::move(call));
    } else if (item["type"] == "function_call_output") {
      messages.push_back({{"role", "tool"}, {"tool_call_id", item["call_id"]}, {"content", item["output"]}});
    } else {
      std::string text;
      for (const json& part : item["content"]) text += part["text"].get_ref<const std::string&>();
      messages.push_back({{"role", item["role"]}, {"content", std::move(text)}});
    }
  }
}

size_t text_bytes_of(const json& items) {
  size_t bytes = 0;
  for (const json& item : items) {
    for (const char* field : {"arguments", "output"})
      if (const auto text = item.find(field); text != item.end()) bytes += text->get_ref<const std::string&>().size();
    if (const auto content = item.find("content"); content != item.end())
      for (const json& part : *content) bytes += part["text"].get_ref<const std::string&>().size();
  }
  return bytes;
}

}  // namespace runahead
