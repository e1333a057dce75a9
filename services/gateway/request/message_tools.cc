#include "services/gateway/request/message_tools.h"

#include <array>

#include "base/json_text.h"
#include "base/limits.h"
#include "services/gateway/request/tool_request.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::string_view_literals;

constexpr std::array kIgnoredTool = {"cache_control"sv, "eager_input_streaming"sv, "input_examples"sv};

json chat_tool(const json& tool, const std::string& path, std::optional<Error>& error) {
  JsonReader reader(tool, path, error);
  const std::string type = reader.string("type", kWordBytesMax).value_or("custom");
  if (type != "custom")
    reader.error("type", "must be custom: tools that Anthropic's own service runs are not there",
                 ErrorCode::kUnsupported);
  json function = json::object();
  for (const auto& [from, to] : {std::pair{"name", "name"}, {"description", "description"}, {"strict", "strict"}})
    if (const json* value = reader.take(from)) function[to] = *value;
  const json* schema = reader.object("input_schema");
  if (schema == nullptr) reader.error("input_schema", "is missing");
  else function["parameters"] = *schema;
  if (schema != nullptr && schema->value("type", json("object")) != "object")
    reader.error("input_schema", "must be a schema of type object");
  reader.ignore(kIgnoredTool);
  reader.finish();
  return {{"type", "function"}, {"function", std::move(function)}};
}

void take_choice(JsonReader& reader, json& chat, std::optional<Error>& error) {
  const json* choice = reader.object("tool_choice");
  if (choice == nullptr) return;
  JsonReader inner(*choice, "tool_choice", error);
  const std::string type = inner.string("type", kWordBytesMax).value_or("");
  if (inner.boolean("disable_parallel_tool_use").value_or(false)) chat["parallel_tool_calls"] = false;
  const auto name = inner.string("name", kWordBytesMax);
  if (type == "tool") chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", name.value_or("")}}}};
  else if (type == "any") chat["tool_choice"] = "required";
  else if (type == "auto" || type == "none") chat["tool_choice"] = type;
  else inner.error("type", "must be auto, any, tool or none");
  if ((type == "tool") != name.has_value()) inner.error("name", "belongs to a choice of type tool, which needs it");
  inner.finish();
}

json call_of(const json& block, const std::string& path, std::optional<Error>& error) {
  JsonReader reader(block, path, error);
  reader.take("type");
  const std::string id = reader.string("id", kWordBytesMax).value_or("");
  const std::string name = reader.string("name", kWordBytesMax).value_or("");
  const json* input = reader.object("input");
  if (id.empty()) reader.error("id", "is missing");
  if (name.empty()) reader.error("name", "is missing");
  if (input == nullptr) reader.error("input", "is missing");
  constexpr std::array kIgnored = {"cache_control"sv, "caller"sv};
  reader.ignore(kIgnored);
  reader.finish();
  const std::string arguments = input == nullptr ? "{}" : to_text(*input);
  return {{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", arguments}}}};
}

json answer_of(const json& block, const std::string& path, std::optional<Error>& error) {
  JsonReader reader(block, path, error);
  reader.take("type");
  const std::string id = reader.string("tool_use_id", kWordBytesMax).value_or("");
  if (id.empty()) reader.error("tool_use_id", "is missing");
  const json* content = reader.take("content");
  reader.boolean("is_error");  // templates do not show it; the content says what went wrong
  constexpr std::array kIgnored = {"cache_control"sv};
  reader.ignore(kIgnored);
  reader.finish();
  return {{"role", "tool"}, {"tool_call_id", id}, {"content", content == nullptr ? json("") : *content}};
}

bool is_type(const json& block, const char* type) {
  return block.is_object() && block.contains("type") && block["type"] == type;
}

}  // namespace

void take_message_tools(JsonReader& reader, json& chat, std::optional<Error>& error) {
  if (const json* list = reader.array("tools", kToolsMax)) {
    json& tools = chat["tools"] = json::array();
    for (const json& tool : *list) {
      const std::string path = "tools[" + std::to_string(tools.size()) + "]";
      if (!tool.is_object()) return reader.error(path, "must be an object with name and input_schema");
      tools.push_back(chat_tool(tool, path, error));
    }
  }
  take_choice(reader, chat, error);
}

void add_chat_messages(const json& message, const std::string& path, json& messages, std::optional<Error>& error) {
  const auto content = message.find("content");
  if (content == message.end() || !content->is_array()) return messages.push_back(message);
  const bool of_user = message["role"] == "user";
  json rest = json::array(), calls = json::array();
  for (size_t i = 0; i < content->size(); ++i) {
    const json& block = (*content)[i];
    const std::string place = path + ".content[" + std::to_string(i) + "]";
    if (of_user && is_type(block, "tool_result")) messages.push_back(answer_of(block, place, error));
    else if (!of_user && is_type(block, "tool_use")) calls.push_back(call_of(block, place, error));
    else rest.push_back(block);
  }
  json said = message;
  const bool only_answers = of_user && rest.empty() && !content->empty();
  said["content"] = std::move(rest);
  if (!calls.empty()) said["tool_calls"] = std::move(calls);
  if (!only_answers) messages.push_back(std::move(said));
}

}  // namespace runahead
