#include "services/gateway/tools/tool_grammar.h"

#include <algorithm>
#include <array>

#include "base/json_text.h"
#include "model/grammar/grammar.h"
#include "services/gateway/tools/grammar_parts.h"
#include "services/gateway/tools/xml_grammar.h"

namespace runahead {
namespace {

using grammar::sequence;
using grammar::text;
using nlohmann::ordered_json;

ordered_json any_object() { return {{"json_object", true}}; }

// As letters, or as the control token that some vocabularies have for it.
ordered_json marker(std::string_view spelled) {
  return {{"either", {text(std::string(spelled)), {{"token", spelled}}}}};
}
ordered_json marker(ToolFormat format) { return marker(opening(format)); }

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

// {"name": "f", "arguments": {...}}
Result<ordered_json> call_object(ToolFormat format, const GrammarTool& tool) {
  const std::string begin = "{\"name\": \"" + tool.name + "\", \"" + std::string(arguments_key(format)) + "\": ";
  ordered_json held = TRY(arguments(tool));
  return sequence({text(begin), std::move(held), text("}")});
}

// f[ARGS]{...}
Result<ordered_json> named_call(const GrammarTool& tool) {
  ordered_json held = TRY(arguments(tool));
  return sequence({text(tool.name), marker(kBeforeArguments), std::move(held)});
}

Result<ordered_json> call_of(ToolFormat format, const GrammarTool& tool) {
  if (format == ToolFormat::kXml) return xml_call_grammar(tool);
  return format == ToolFormat::kMistralArgs ? named_call(tool) : call_object(format, tool);
}

// Of any of the tools.
Result<ordered_json> one_call(ToolFormat format, std::span<const GrammarTool> tools) {
  ordered_json calls = ordered_json::array();
  for (const GrammarTool& tool : tools) calls.push_back(TRY(call_of(format, tool)));
  return ordered_json{{"either", std::move(calls)}};
}

ordered_json one_or_more(ordered_json call, bool many, const char* between) {
  if (!many) return call;
  return {{"list", std::move(call)}, {"between", between}};
}

// And Qwen3-Coder's, with other calls between the same marks.
ordered_json hermes(const ordered_json& call, bool must_call, bool many) {
  const ordered_json inside = sequence({text("\n"), call, text("\n</tool_call>")});
  if (must_call) return one_or_more(sequence({marker(ToolFormat::kHermes), inside}), many, "\n");
  return {{"text_with", inside}, {"behind", opening(ToolFormat::kHermes)}, {"once", !many}};
}

ordered_json mistral(const ordered_json& object, bool must_call, bool many) {
  const ordered_json list = sequence({text("["), one_or_more(object, many, ", "), text("]")});
  if (must_call) return sequence({marker(ToolFormat::kMistral), list});
  return {{"text_with", list}, {"behind", opening(ToolFormat::kMistral)}, {"once", true}};
}

ordered_json mistral_args(const ordered_json& call, bool must_call, bool many) {
  constexpr auto kFormat = ToolFormat::kMistralArgs;
  if (must_call) return one_or_more(sequence({marker(kFormat), call}), many, "");
  return {{"text_with", call}, {"behind", opening(kFormat)}, {"once", !many}};
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

Result<std::string> tool_grammar(ToolFormat format, std::span<const GrammarTool> tools, const ToolAnswer& answer) {
  const ordered_json call = TRY(one_call(format, tools));
  const bool is_call = answer.must_call || !answer.otherwise.empty();
  ordered_json whole = format == ToolFormat::kMistral       ? mistral(call, is_call, answer.many)
                       : format == ToolFormat::kMistralArgs ? mistral_args(call, is_call, answer.many)
                       : format == ToolFormat::kLlama       ? llama(call, is_call, answer.many)
                                                            : hermes(call, is_call, answer.many);
  if (!answer.must_call && !answer.otherwise.empty())
    whole = {{"either", {std::move(whole), ordered_json::parse(answer.otherwise)}}};
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
