#include "services/commands/effective_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "base/json_text.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kCommentColumn = 48;

const char* name(Origin::Kind kind) {
  switch (kind) {
    case Origin::kDefault:
      return "default";
    case Origin::kFlag:
      return "flag";
    case Origin::kEnvironment:
      return "environment";
    case Origin::kFile:
      return "file";
  }
  return "unknown";
}

bool is_hidden(const CLI::Option& option) { return option.get_group().empty(); }

// "[a,b]", as CLI11 writes a list.
std::vector<std::string> items_of(const std::string& list) {
  return list.size() <= 2 ? std::vector<std::string>() : CLI::detail::split(list.substr(1, list.size() - 2), ',');
}

// A flag without a value counts as false; an option without one and without a default has none.
std::vector<std::string> values_of(const CLI::Option& option) {
  if (option.count() > 0) return option.results();
  if (option.get_expected_max() == 0) return {"false"};
  const std::string text = option.get_default_str();
  if (option.get_expected_max() > 1 && text.starts_with('[') && text.ends_with(']')) return items_of(text);
  return text.empty() ? std::vector<std::string>() : std::vector{text};
}

struct ShownValue {
  std::string key;
  std::vector<std::string> values;
  Origin origin;
};

std::vector<ShownValue> shown_values(const CLI::App& command, const Origins& origins) {
  std::vector<ShownValue> shown;
  for (const CLI::Option* option : command.get_options()) {
    const std::string key = long_name(*option);
    if (key.empty() || is_hidden(*option) || key == "help" || key == "config") continue;
    const auto origin = origins.find(key);
    shown.push_back({key, values_of(*option), origin == origins.end() ? Origin() : origin->second});
  }
  std::ranges::sort(shown, {}, &ShownValue::key);
  return shown;
}

// Plain where YAML and JSON read the same text; else quoted as JSON, which is YAML too.
std::string yaml_scalar(const std::string& value) {
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) || c == '.' || c == '/' || c == '_' || c == '-'; };
  const bool plain = !value.empty() && value.front() != '-' && std::ranges::all_of(value, is_plain);
  return plain ? value : to_text(json(value));
}

std::string yaml_value(const std::vector<std::string>& values) {
  if (values.size() == 1) return yaml_scalar(values.front());
  std::string list;
  for (const std::string& value : values) list += (list.empty() ? "" : ", ") + yaml_scalar(value);
  return "[" + list + "]";
}

}  // namespace

std::string long_name(const CLI::Option& option) {
  return option.get_lnames().empty() ? std::string() : option.get_lnames().front();
}

std::vector<std::string> keys_of(const CLI::App& command) {
  std::vector<std::string> keys;
  for (const CLI::Option* option : command.get_options())
    if (std::string key = long_name(*option); !key.empty() && key != "help" && key != "version")
      keys.push_back(std::move(key));
  return keys;
}

bool is_secret(std::string_view key) { return key == "api-key"; }

std::string effective_config(const CLI::App& command, const Origins& origins, bool as_json) {
  std::string text = command.get_name() + ":\n";
  json values = json::array();
  for (const ShownValue& shown : shown_values(command, origins)) {
    const bool hidden = is_secret(shown.key) && !shown.values.empty();
    const bool given = !shown.values.empty() && !hidden;
    const std::string where = shown.origin.where.empty() ? "" : " " + shown.origin.where;
    const std::string line = given    ? fmt::format("  {}: {}", shown.key, yaml_value(shown.values))
                             : hidden ? fmt::format("  # {}: (not shown)", shown.key)
                                      : fmt::format("  # {}: (none)", shown.key);
    text += fmt::format("{:{}}  # {}{}\n", line, kCommentColumn, name(shown.origin.kind), where);
    json value;
    if (given) value = shown.values.size() == 1 ? json(shown.values.front()) : json(shown.values);
    values.push_back({{"key", shown.key},
                      {"value", value},
                      {"secret", is_secret(shown.key)},
                      {"origin", name(shown.origin.kind)},
                      {"where", shown.origin.where}});
  }
  return as_json ? to_text(json{{"command", command.get_name()}, {"values", values}}) + "\n" : text;
}

}  // namespace runahead
