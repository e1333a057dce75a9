#include "services/gateway/tools/tool_grammar.h"

#include <algorithm>
#include <array>

#include "base/json_text.h"
#include "model/grammar/grammar.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;

ordered_json text(const std::string& bytes) { return {{"text", bytes}}; }

ordered_json sequence(std::initializer_list<ordered_json> parts) {
  return {{"sequence", ordered_json::array_t(parts)}};
}

ordered_json any_object() { return {{"json_object", true}}; }

// What opens calls, as letters or as the control token that some vocabularies have for it.
ordered_json marker(ToolFormat format) {
  const std::string spelled(opening(format));
  return {{"either", {text(spelled), {{"token", spelled}}}}};
}

// Arguments are an object, also where a schema leaves that open.
ordered_json held_schema(const ordered_json& schema) {
  constexpr std::array kSayWhat = {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"};
  ordered_json held = schema;
  const bool open = std::ranges::none_of(kSayWhat, [&](const char* key) { return schema.contains(key); });
  if (open) held["type"] = "object";
  return {{"json_schema", std::move(held)}};
}

Result<ordered_json> arguments(const GrammarTool& tool) {
  ordered_json held = held_schema(tool.parameters);
  const auto compiled = grammar::compile(to_ordered_text(held));
  if (compiled) return held;
  if (!tool.strict) return any_object();
  Error error = compiled.error();
  error.param = error.param.empty() ? tool.field : tool.field + "." + error.param;
  error.message = "'" + error.param + "' " + error.message;
  return std::unexpected(std::move(error));
}

// {"name": "f", "arguments": {...}} of any of the tools.
Result<ordered_json> call_objects(ToolFormat format, std::span<const GrammarTool> tools) {
  const std::string key(arguments_key(format));
  ordered_json calls = ordered_json::array();
  for (const GrammarTool& tool : tools) {
    const std::string begin = "{\"name\": \"" + tool.name + "\", \"" + key + "\": ";
    calls.push_back(sequence({text(begin), TRY(arguments(tool)), text("}")}));
  }
  return ordered_json{{"either", std::move(calls)}};
}

ordered_json one_or_more(ordered_json call, bool many, const char* between) {
  if (!many) return call;
  return {{"list", std::move(call)}, {"between", between}};
}

ordered_json hermes(const ordered_json& object, bool must_call, bool many) {
  const ordered_json inside = sequence({text("\n"), object, text("\n</tool_call>")});
  if (must_call) return one_or_more(sequence({marker(ToolFormat::kHermes), inside}), many, "\n");
  return {{"text_with", inside}, {"behind", opening(ToolFormat::kHermes)}, {"once", !many}};
}

ordered_json mistral(const ordered_json& object, bool must_call, bool many) {
  const ordered_json list = sequence({text("["), one_or_more(object, many, ", "), text("]")});
  if (must_call) return sequence({marker(ToolFormat::kMistral), list});
  return {{"text_with", list}, {"behind", opening(ToolFormat::kMistral)}, {"once", true}};
}

// A brace at the beginning opens a call, so that other text begins otherwise.
ordered_json llama(const ordered_json& object, bool must_call, bool many) {
  ordered_json calls = one_or_more(object, many, "; ");
  if (must_call) return calls;
  const ordered_json other = {
      {"text_with", calls}, {"behind", opening(ToolFormat::kLlama)}, {"once", true}, {"not_first", "{"}};
  return {{"either", {calls, other}}};
}

}  // namespace

Result<std::string> tool_grammar(ToolFormat format, std::span<const GrammarTool> tools, bool must_call, bool many) {
  if (format == ToolFormat::kXml)
    return fail(ErrorCode::kUnsupported,
                "this model writes its calls as XML, to which no answer can be held; leave out a 'tool_choice' other "
                "than auto, \"strict\" and \"parallel_tool_calls\": false",
                "tool_choice");
  const ordered_json object = TRY(call_objects(format, tools));
  const ordered_json whole = format == ToolFormat::kHermes    ? hermes(object, must_call, many)
                             : format == ToolFormat::kMistral ? mistral(object, must_call, many)
                                                              : llama(object, must_call, many);
  std::string written = to_ordered_text(whole);
  if (const auto compiled = grammar::compile(written); !compiled) {
    Error error = compiled.error();
    error.message = "'tools' " + error.message + "; send fewer tools, or simpler ones";
    error.param = "tools";
    return std::unexpected(std::move(error));
  }
  return written;
}

}  // namespace runahead
