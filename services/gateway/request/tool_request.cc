#include "services/gateway/request/tool_request.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/limits.h"
#include "services/gateway/tools/tool_grammar.h"

namespace runahead {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using namespace std::string_view_literals;

constexpr size_t kToolNameBytesMax = 128;  // Anthropic's; OpenAI has 64

bool is_tool_name(std::string_view name) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  };
  return !name.empty() && name.size() <= kToolNameBytesMax && std::ranges::all_of(name, fits);
}

std::string take_name(JsonReader& function) {
  const std::string name = function.string("name", kWordBytesMax).value_or("");
  if (!is_tool_name(name)) function.error("name", "must be 1 to 128 of the characters a-z, A-Z, 0-9, '_', '-' and '.'");
  return name;
}

// {"type": "function", "function": OBJECT}: the object, if it is that.
const json* take_function(const json& entry, const std::string& path, std::optional<Error>& error) {
  if (!entry.is_object()) {
    if (!error)
      error = Error{ErrorCode::kInvalidArgument, "'" + path + "' must be an object with type and function", path};
    return nullptr;
  }
  JsonReader reader(entry, path, error);
  const std::string type = reader.string("type", kWordBytesMax).value_or("function");
  if (type != "function")
    reader.error("type", "must be function, the only kind of tool that is built", ErrorCode::kUnsupported);
  const json* function = reader.object("function");
  if (function == nullptr) reader.error("function", "is missing");
  reader.finish();
  return function;
}

// The tool's name.
std::string take_tool(const json& entry, const std::string& path, ToolUse& tools, std::optional<Error>& error) {
  const json* function = take_function(entry, path, error);
  if (function == nullptr) return {};
  JsonReader reader(*function, path + ".function", error);
  std::string name = take_name(reader);
  reader.string("description", limits::kJsonBodyBytesMax);
  if (const json* schema = reader.object("parameters"); schema != nullptr)
    if (const json type = schema->value("type", json("object")); type != "object")
      reader.error("parameters", "must be a schema of type object");
  if (reader.boolean("strict").value_or(false)) tools.strict = true;
  reader.finish();
  return name;
}

void take_named_choice(const json& choice, ToolUse& tools, std::optional<Error>& error) {
  const json* function = take_function(choice, "tool_choice", error);
  if (function == nullptr) return;
  JsonReader reader(*function, "tool_choice.function", error);
  tools.named = take_name(reader);
  tools.choice = ToolUse::Choice::kNamed;
  reader.finish();
}

void take_choice(JsonReader& reader, ToolUse& tools, std::optional<Error>& error) {
  const json* choice = reader.take("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_object()) return take_named_choice(*choice, tools, error);
  if (*choice == "none") tools.choice = ToolUse::Choice::kNone;
  else if (*choice == "required") tools.choice = ToolUse::Choice::kRequired;
  else if (*choice != "auto")
    reader.error("tool_choice",
                 "must be none, auto, required or {\"type\": \"function\", \"function\": {\"name\": \"...\"}}");
}

}  // namespace

ToolUse take_tools(JsonReader& reader, std::optional<Error>& error) {
  ToolUse tools;
  std::set<std::string> names;
  const json* list = reader.array("tools", kToolsMax);
  const bool given = list != nullptr && !list->empty();
  if (given) {
    tools.choice = ToolUse::Choice::kAuto;
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string path = "tools[" + std::to_string(i) + "]";
      const std::string name = take_tool((*list)[i], path, tools, error);
      if (!names.insert(name).second) reader.error(path + ".function.name", "is the name of a tool before it, too");
    }
  }
  take_choice(reader, tools, error);
  tools.parallel = reader.boolean("parallel_tool_calls").value_or(true);
  if (!given && tools.choice != ToolUse::Choice::kNone)
    reader.error("tool_choice", "asks for a call, but there are no tools; send them as 'tools'");
  if (tools.choice == ToolUse::Choice::kNamed && given && !names.contains(tools.named))
    reader.error("tool_choice.function.name", "names none of the tools");
  return tools;
}

ordered_json take_tool_calls(JsonReader& message, std::optional<Error>& error) {
  ordered_json calls = ordered_json::array();
  const json* list = message.array("tool_calls", kToolsMax);
  if (list == nullptr) return calls;
  for (size_t i = 0; i < list->size() && !error; ++i) {
    const json& entry = (*list)[i];
    const std::string path = message.path_of("tool_calls") + "[" + std::to_string(i) + "]";
    json call = entry;
    std::string id;
    if (entry.is_object()) {
      JsonReader reader(entry, path, error);
      id = reader.string("id", kWordBytesMax).value_or("");
      if (id.empty()) reader.error("id", "is missing");
      call.erase("id");
      call.erase("index");  // that of a stream's deltas, which clients keep
    }
    const json* function = take_function(call, path, error);
    if (function == nullptr) break;
    JsonReader reader(*function, path + ".function", error);
    const std::string name = take_name(reader);
    const std::string text = reader.string("arguments", limits::kJsonBodyBytesMax).value_or("");
    reader.finish();
    const bool fits = text.empty() || parse_json_object(text).has_value();
    if (!fits) reader.error("arguments", "must be the text of a JSON object");
    if (error) break;
    ordered_json arguments = text.empty() ? ordered_json::object() : parse_in_order(text);
    calls.push_back(
        {{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", std::move(arguments)}}}});
  }
  return calls;
}

namespace {

// A tool of a chat has an object of its own for what Anthropic's has in itself.
const ordered_json& function_of(const ordered_json& tool) {
  return tool.contains("function") ? tool.at("function") : tool;
}

// As templates know it, fields in the order as written.
ordered_json shown_tool(const ordered_json& tool) {
  const ordered_json& function = function_of(tool);
  ordered_json shown = {{"name", function.at("name")}};
  if (const auto text = function.find("description"); text != function.end() && !text->is_null())
    shown["description"] = *text;
  const auto schema = function.find(function.contains("input_schema") ? "input_schema" : "parameters");
  const bool has_schema = schema != function.end() && !schema->is_null();
  shown["parameters"] = has_schema ? *schema : ordered_json{{"type", "object"}, {"properties", ordered_json::object()}};
  return {{"type", "function"}, {"function", std::move(shown)}};
}

bool is_strict(const ordered_json& tool) {
  const auto strict = function_of(tool).find("strict");
  return strict != function_of(tool).end() && *strict == true;
}

// A field is text to a template that does not say so if its schema says it can be nothing else.
std::set<std::string> text_fields(const ordered_json& tool) {
  std::set<std::string> names;
  const ordered_json& schema = tool.at("function").at("parameters");
  const auto fields = schema.find("properties");
  if (fields == schema.end() || !fields->is_object()) return names;
  for (const auto& [name, field] : fields->items())
    if (field.is_object() && field.contains("type") && field.at("type") == "string") names.insert(name);
  return names;
}

// The inputs of Anthropic's blocks, one behind the other as the calls are: they came as objects, whose order was lost.
void order_arguments(ordered_json& messages, const ordered_json& body) {
  std::vector<const ordered_json*> inputs;
  const auto written = body.find("messages");
  if (written == body.end()) return;
  for (const ordered_json& message : *written) {
    const auto content = message.find("content");
    if (content == message.end() || !content->is_array()) continue;
    for (const ordered_json& block : *content)
      if (block.is_object() && block.contains("type") && block.at("type") == "tool_use")
        inputs.push_back(&block.at("input"));
  }
  auto input = inputs.begin();
  for (ordered_json& message : messages) {
    if (inputs.empty() || !message.contains("tool_calls")) continue;
    for (ordered_json& call : message["tool_calls"])
      if (input != inputs.end()) call["function"]["arguments"] = **input++;
  }
}

}  // namespace

Result<std::string> prepare_tools(ToolUse& tools, ordered_json& messages, const std::string& body,
                                  const TextCodec& codec, const std::string& structure) {
  const bool has_calls = std::ranges::any_of(messages, [](const ordered_json& m) { return m.contains("tool_calls"); });
  if (tools.choice == ToolUse::Choice::kNone && !has_calls) return structure;
  const ordered_json whole = parse_in_order(body);  // it was parsed before
  if (has_calls) order_arguments(messages, whole);
  if (tools.choice == ToolUse::Choice::kNone) return structure;
  const ToolFormat format = TRY(codec.tool_format());
  tools.shown = ordered_json::array();
  ToolReading reading{format, tools.holds_to_grammar(), {}};
  std::vector<GrammarTool> held;
  for (const ordered_json& tool : whole.at("tools")) {
    ordered_json shown = shown_tool(tool);
    const auto name = shown.at("function").at("name").get<std::string>();
    reading.tools.push_back({name, text_fields(shown)});
    const std::string field = "tools[" + std::to_string(tools.shown.size()) + "]" +
                              (tool.contains("input_schema") ? ".input_schema"
                               : tool.contains("function")   ? ".function.parameters"
                                                             : ".parameters");
    if (tools.choice != ToolUse::Choice::kNamed || name == tools.named)
      held.push_back({name, shown.at("function").at("parameters"), is_strict(tool), field});
    tools.shown.push_back(std::move(shown));
  }
  tools.reading = std::move(reading);
  if (!tools.holds_to_grammar()) return std::string();
  return tool_grammar(format, held,
                      {.must_call = tools.choice != ToolUse::Choice::kAuto,
                       .many = tools.parallel && tools.choice != ToolUse::Choice::kNamed,
                       .otherwise = structure});
}

}  // namespace runahead
