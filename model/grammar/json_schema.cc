#include "model/grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/json_text.h"
#include "base/limits.h"

namespace runahead::grammar {
namespace {

using Json = JsonSchemaWriter::Json;
using namespace std::string_view_literals;

// They say nothing of what a text must be.
constexpr std::array kSkipped = {
    "title"sv,          "description"sv, "default"sv,       "examples"sv, "deprecated"sv,
    "readOnly"sv,       "writeOnly"sv,   "$comment"sv,      "$schema"sv,  "$id"sv,
    "$defs"sv,          "definitions"sv, "discriminator"sv, "$anchor"sv,  "contentMediaType"sv,
    "contentEncoding"sv};
constexpr std::array kChoices = {"anyOf"sv, "oneOf"sv, "allOf"sv};
constexpr std::array kOfTypes = {"type"sv,
                                 "enum"sv,
                                 "const"sv,
                                 "properties"sv,
                                 "required"sv,
                                 "items"sv,
                                 "minItems"sv,
                                 "maxItems"sv,
                                 "prefixItems"sv,
                                 "additionalProperties"sv,
                                 "minLength"sv,
                                 "maxLength"sv,
                                 "pattern"sv,
                                 "format"sv,
                                 "minimum"sv,
                                 "maximum"sv,
                                 "multipleOf"sv,
                                 "exclusiveMinimum"sv,
                                 "exclusiveMaximum"sv};

bool is_one(std::string_view name, auto& names) { return std::ranges::find(names, name) != names.end(); }
bool is_skipped(std::string_view name) { return is_one(name, kSkipped) || name.starts_with("x-"); }

bool is_of_type(const Json& value, std::string_view type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "number") return value.is_number();
  return value.is_number() && std::floor(value.get<double>()) == value.get<double>();
}

// What `type` says, or what the other fields are about.
std::vector<std::string> types_of(const Json& schema) {
  const auto type = schema.find("type");
  if (type != schema.end() && type->is_string()) return {type->get<std::string>()};
  if (type != schema.end() && type->is_array()) {
    std::vector<std::string> types;
    for (const Json& entry : *type)
      if (entry.is_string()) types.push_back(entry.get<std::string>());
    return types;
  }
  const auto has = [&](auto... names) { return (schema.contains(names) || ...); };
  if (has("properties", "required", "additionalProperties")) return {"object"};
  if (has("items", "prefixItems", "minItems", "maxItems")) return {"array"};
  if (has("minLength", "maxLength", "pattern", "format")) return {"string"};
  if (has("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")) return {"number"};
  return {};
}

// enum and const, of its types; nothing if it has neither.
std::optional<std::vector<Json>> values_of(const Json& schema) {
  std::vector<Json> values;
  if (schema.contains("const")) values.push_back(schema["const"]);
  else if (schema.contains("enum") && schema["enum"].is_array())
    values.assign(schema["enum"].begin(), schema["enum"].end());
  else return {};
  if (const auto types = types_of(schema); schema.contains("type"))
    std::erase_if(values, [&](const Json& value) {
      return std::ranges::none_of(types, [&](const std::string& type) { return is_of_type(value, type); });
    });
  return values;
}

// "#/$defs/Person" in the whole schema; nothing if it is not there.
const Json* find_reference(const Json& root, std::string_view reference) {
  if (!reference.starts_with('#')) return nullptr;
  reference.remove_prefix(1);
  const Json* at = &root;
  while (!reference.empty()) {
    if (reference.front() != '/') return nullptr;
    reference.remove_prefix(1);
    std::string name(reference.substr(0, reference.find('/')));
    reference.remove_prefix(name.size());
    for (size_t tilde = 0; (tilde = name.find('~', tilde)) != std::string::npos; ++tilde)
      name.replace(tilde, 2, name.substr(tilde, 2) == "~1" ? "/" : "~");
    if (at->is_object() && at->contains(name)) at = &(*at)[name];
    else if (at->is_array() && !name.empty() && name.size() < 6 &&
             std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; }) && std::stoul(name) < at->size())
      at = &(*at)[std::stoul(name)];
    else return nullptr;
  }
  return at;
}

const Json& without_references(const Json& root, const Json& schema) {
  const Json* at = &schema;
  for (int hops = 0; hops < limits::kJsonDepthMax && at->is_object() && at->contains("$ref"); ++hops) {
    const Json& reference = (*at)["$ref"];
    const Json* found = reference.is_string() ? find_reference(root, reference.get_ref<const std::string&>()) : nullptr;
    if (found == nullptr) break;
    at = found;
  }
  return *at;
}

bool share_a_value(const std::vector<Json>& a, const std::vector<Json>& b) {
  return std::ranges::any_of(a, [&](const Json& value) { return std::ranges::find(b, value) != b.end(); });
}

bool may_share_a_type(const Json& a, const Json& b) {
  const std::vector<std::string> left = types_of(a), right = types_of(b);
  if (left.empty() || right.empty()) return true;
  const auto kind = [](const std::string& type) { return type == "integer" ? "number" : type; };
  return std::ranges::any_of(
      left, [&](const std::string& type) { return std::ranges::find(right, kind(type), kind) != right.end(); });
}

bool requires_field(const Json& schema, const std::string& name) {
  return schema.contains("required") && schema["required"].is_array() &&
         std::ranges::find(schema["required"], Json(name)) != schema["required"].end();
}

// No value is valid for both: by their types, their values, or the values of a field that both require.
bool exclude_each_other(const Json& root, const Json& first, const Json& second) {
  const Json& a = without_references(root, first);
  const Json& b = without_references(root, second);
  if (!a.is_object() || !b.is_object()) return false;
  const auto values = values_of(a), others = values_of(b);
  if (values && others) return !share_a_value(*values, *others);
  if (!may_share_a_type(a, b)) return true;
  if (!a.contains("properties") || !a["properties"].is_object()) return false;
  for (const auto& [name, schema] : a["properties"].items()) {
    if (!requires_field(a, name) || !requires_field(b, name) || !b.contains("properties") ||
        !b["properties"].contains(name))
      continue;
    const Json& left = without_references(root, schema);
    const Json& right = without_references(root, b["properties"][name]);
    if (!left.is_object() || !right.is_object()) continue;
    const auto field = values_of(left), other_field = values_of(right);
    if (field && other_field && !share_a_value(*field, *other_field)) return true;
  }
  return false;
}

}  // namespace

std::unexpected<Error> JsonSchemaWriter::Place::refuse(ErrorCode code, std::string_view field,
                                                       const std::string& what) const {
  return fail(code, what, field.empty() ? path : under(field));
}

Result<Rule> JsonSchemaWriter::write(const Json& schema) {
  root_ = &schema;
  rules_.clear();
  const Rule rule = rule_of({schema, ""});
  TRY(write_open());
  return rule;
}

Rule JsonSchemaWriter::rule_of(const Place& place) {
  const auto [found, is_new] = rules_.try_emplace(&place.schema, 0);
  if (is_new) {
    found->second = automaton_.rule();
    open_.emplace_back(place, found->second);
  }
  return found->second;
}

Result<void> JsonSchemaWriter::write_open() {
  while (!open_.empty() && !automaton_.full()) {
    const auto [place, rule] = open_.back();
    open_.pop_back();
    TRY(write(place, automaton_.begin(rule), automaton_.end(rule)));
  }
  return {};
}

Result<void> JsonSchemaWriter::write(const Place& place, Node from, Node to) {
  const Json& schema = place.schema;
  if (schema.is_boolean()) {
    if (schema.get<bool>()) automaton_.call(from, any_value(), to);
    return {};
  }
  if (!schema.is_object())
    return place.refuse(ErrorCode::kInvalidArgument, "", "must be a schema: an object, true or false");
  std::string_view choice;  // $ref, anyOf ...
  for (const auto& [name, value] : schema.items())
    if (name == "$ref" || is_one(name, kChoices)) choice = name;
    else if (!is_skipped(name) && !is_one(name, kOfTypes))
      return place.refuse(ErrorCode::kUnsupported, name,
                          "is not supported; leave it out, and check it in what comes back");
  for (const auto& [name, value] : schema.items())
    if (!choice.empty() && name != choice && !is_skipped(name))
      return place.refuse(ErrorCode::kUnsupported, name,
                          "stands beside " + std::string(choice) + ", which is not supported; put it inside");
  if (choice == "$ref") return write_reference(place, from, to);
  if (!choice.empty()) return write_either(place, choice, from, to);
  if (const auto values = values_of(schema)) {
    for (const auto& [name, value] : schema.items())
      if (name != "type" && name != (schema.contains("const") ? "const" : "enum") && !is_skipped(name))
        return place.refuse(ErrorCode::kUnsupported, name,
                            "stands beside values by name; leave out those that it forbids");
    return write_values(place, *values, from, to);
  }
  if (schema.contains("enum")) return place.refuse(ErrorCode::kInvalidArgument, "enum", "must be a list of values");
  const std::vector<std::string> types = types_of(schema);
  if (types.empty() && schema.contains("type"))
    return place.refuse(ErrorCode::kInvalidArgument, "type", "must be the name of a type or a list of names");
  if (types.empty()) automaton_.call(from, any_value(), to);
  for (const std::string& type : types) TRY(write_typed(place, type, from, to));
  return {};
}

Result<void> JsonSchemaWriter::write_typed(const Place& place, const std::string& type, Node from, Node to) {
  if (type == "object") return write_object(place, from, to);
  if (type == "array") return write_list(place, from, to);
  if (type == "string") return write_string(place, from, to);
  if (type == "number" || type == "integer") return write_number(place, type == "integer", from, to);
  if (type == "null") return automaton_.skip(automaton_.text(from, "null"), to), Result<void>{};
  if (type == "boolean") return automaton_.skip(automaton_.one_of(from, {"true", "false"}), to), Result<void>{};
  return place.refuse(ErrorCode::kInvalidArgument, "type",
                      "is none of object, array, string, number, integer, boolean, null");
}

Result<void> JsonSchemaWriter::write_values(const Place& place, const std::vector<Json>& values, Node from, Node to) {
  std::vector<std::string> texts;
  for (const Json& value : values) texts.push_back(to_ordered_text(value));
  if (texts.empty()) return place.refuse(ErrorCode::kInvalidArgument, "enum", "has no value of the schema's type");
  automaton_.skip(automaton_.one_of(from, texts), to);
  return {};
}

Result<void> JsonSchemaWriter::write_either(const Place& place, std::string_view field, Node from, Node to) {
  const Json& list = place.schema[std::string(field)];
  if (!list.is_array() || list.empty())
    return place.refuse(ErrorCode::kInvalidArgument, field, "must be a list of schemas, and not empty");
  if (field == "allOf" && list.size() > 1)
    return place.refuse(ErrorCode::kUnsupported, field, "of more than one schema is not supported; write them as one");
  if (field == "oneOf")
    for (size_t i = 0; i < list.size(); ++i)
      for (size_t k = 0; k < i; ++k)
        if (!exclude_each_other(*root_, list[k], list[i]))
          return place.refuse(
              ErrorCode::kUnsupported, field,
              "has alternatives " + std::to_string(k) + " and " + std::to_string(i) +
                  " that one value could satisfy both; use anyOf, or a required field with another const in each");
  for (size_t i = 0; i < list.size(); ++i) {
    const Place part{list[i], place.under(field) + "[" + std::to_string(i) + "]"};
    automaton_.call(from, rule_of(part), to);
  }
  return {};
}

Result<void> JsonSchemaWriter::write_reference(const Place& place, Node from, Node to) {
  const Json& reference = place.schema["$ref"];
  const Json* found = reference.is_string() ? find_reference(*root_, reference.get_ref<const std::string&>()) : nullptr;
  if (found == nullptr)
    return place.refuse(ErrorCode::kInvalidArgument, "$ref", "names nothing in this schema; write it as #/$defs/NAME");
  std::string path =
      reference.get<std::string>().substr(std::min<size_t>(2, reference.get_ref<const std::string&>().size()));
  std::ranges::replace(path, '/', '.');
  automaton_.call(from, rule_of({*found, path}), to);
  return {};
}

}  // namespace runahead::grammar
