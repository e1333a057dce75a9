#include "services/gateway/tools/xml_grammar.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/json_text.h"
#include "model/grammar/grammar.h"
#include "services/gateway/tools/grammar_parts.h"
#include "services/gateway/tools/xml_call.h"

namespace runahead {
namespace {

using grammar::sequence;
using grammar::text;
using nlohmann::ordered_json;
using namespace std::string_view_literals;

constexpr auto kClosing = "</parameter>"sv;

ordered_json until(std::string_view bytes) { return {{"text_until", bytes}}; }

// Of a value that is bare text: what says no more than that it is one.
constexpr std::array kOfAnyString = {"type"sv,     "description"sv, "title"sv, "default"sv,
                                     "examples"sv, "enum"sv,        "const"sv};
// Of the arguments.
constexpr std::array kOfArguments = {"type"sv,        "properties"sv, "required"sv, "additionalProperties"sv,
                                     "description"sv, "title"sv,      "$defs"sv,    "definitions"sv,
                                     "$schema"sv,     "$id"sv,        "$comment"sv};

// The first of its keywords that is none of these; empty: there is none.
std::string keyword_beyond(const ordered_json& schema, std::span<const std::string_view> known) {
  for (const auto& [key, value] : schema.items())
    if (std::ranges::find(known, key) == known.end()) return key;
  return {};
}

std::unexpected<Error> cannot_be_held(const std::string& path, const std::string& why) {
  return fail(ErrorCode::kUnsupported, "'" + path + "' " + why, path);
}

// One of these texts, which the reader would find as they are.
Result<ordered_json> one_of(const ordered_json& values, const std::string& path) {
  ordered_json all = ordered_json::array();
  for (const ordered_json& value : values) {
    const std::string bytes = value.is_string() ? value.get<std::string>() : std::string();
    const bool is_plain =
        !bytes.empty() && bytes.find(kClosing) == std::string::npos && bytes.front() != '\n' && bytes.back() != '\n';
    if (!is_plain) return cannot_be_held(path, "has a value that cannot be written between tags, as this model does");
    all.push_back(text(bytes + "\n" + std::string(kClosing)));
  }
  return ordered_json{{"either", std::move(all)}};
}

Result<ordered_json> bare_text(const ordered_json& schema, const std::string& path) {
  if (const std::string key = keyword_beyond(schema, kOfAnyString); !key.empty())
    return cannot_be_held(path + "." + key, "cannot be held where a model writes strings as bare text between tags");
  if (schema.contains("const")) return one_of(ordered_json::array({schema["const"]}), path + ".const");
  if (schema.contains("enum")) return one_of(schema["enum"], path + ".enum");
  return until(kClosing);
}

// In JSON, one with such a tag in it would be read as if it ended there.
bool has_constant_with_tag(const ordered_json& schema) {
  const auto has_tag = [&schema](const char* key) {
    const std::string constant = schema.contains(key) ? to_ordered_text(schema[key]) : std::string();
    return constant.find(kClosing) != std::string::npos || constant.find(xml_call::kEnd) != std::string::npos;
  };
  if (schema.is_object() && (has_tag("enum") || has_tag("const"))) return true;
  return schema.is_structured() && std::ranges::any_of(schema, has_constant_with_tag);
}

Result<ordered_json> json_value(const ordered_json& schema, const ordered_json& whole, const std::string& path) {
  if (has_constant_with_tag(schema))
    return cannot_be_held(path, "has a value that cannot be written between tags, as this model does");
  ordered_json held = schema;
  for (const char* shared : {"$defs", "definitions"})
    if (held.is_object() && whole.contains(shared)) held[shared] = whole[shared];
  ordered_json grammar = {{"json_schema", std::move(held)}};
  if (const auto compiled = grammar::compile(to_ordered_text(grammar)); !compiled) {
    const Error& error = compiled.error();
    return cannot_be_held(error.param.empty() ? path : path + "." + error.param, error.message);
  }
  return sequence({std::move(grammar), text("\n" + std::string(kClosing))});
}

Result<ordered_json> value(const ordered_json& schema, const ordered_json& whole, const std::string& path) {
  const bool is_text = schema.is_object() && schema.contains("type") && schema["type"] == "string";
  return is_text ? bare_text(schema, path) : json_value(schema, whole, path);
}

bool fits_tag(std::string_view name) {
  return !name.empty() && name.find_first_of(">\n") == std::string_view::npos && name.front() != ' ' &&
         name.back() != ' ';
}

ordered_json fields_of(const ordered_json& schema) {
  const auto fields = schema.find("properties");
  return fields != schema.end() && fields->is_object() ? *fields : ordered_json::object();
}

// What the schema says beyond its fields, or of fields that it does not describe.
Result<void> check_beyond_fields(const ordered_json& schema, const std::string& path) {
  if (const std::string key = keyword_beyond(schema, kOfArguments); !key.empty())
    return cannot_be_held(path + "." + key, "cannot be held where a model writes its calls as XML");
  const ordered_json fields = fields_of(schema);
  for (const ordered_json& name : schema.value("required", ordered_json::array()))
    if (!name.is_string() || !fields.contains(name.get<std::string>()))
      return cannot_be_held(path + ".required", "names a field that 'properties' does not describe");
  return {};
}

Result<ordered_json> parameters(const GrammarTool& tool) {
  const ordered_json& schema = tool.parameters;
  if (const auto held = check_beyond_fields(schema, tool.field); !held && tool.strict)
    return std::unexpected(held.error());
  const ordered_json required = schema.value("required", ordered_json::array());
  const ordered_json fields = fields_of(schema);
  ordered_json all = ordered_json::array();
  for (const auto& [name, field] : fields.items()) {
    const std::string path = tool.field + ".properties." + name;
    if (!fits_tag(name) && tool.strict)
      return cannot_be_held(path, "has a name that cannot be written in a tag, as this model does");
    if (!fits_tag(name)) continue;
    Result<ordered_json> held = value(field, schema, path);
    if (!held && tool.strict) return held;
    if (!held) held = until(kClosing);
    ordered_json one = sequence({text("<parameter=" + name + ">\n"), std::move(*held), text("\n")});
    const bool must = std::ranges::find(required, ordered_json(name)) != required.end();
    all.push_back(must ? std::move(one) : ordered_json{{"either", {std::move(one), text("")}}});
  }
  return ordered_json{{"sequence", std::move(all)}};
}

}  // namespace

Result<ordered_json> xml_call_grammar(const GrammarTool& tool) {
  ordered_json held = TRY(parameters(tool));
  return sequence({text("<function=" + tool.name + ">\n"), std::move(held), text("</function>")});
}

}  // namespace runahead
