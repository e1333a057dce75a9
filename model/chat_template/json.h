// JSON in and out of the chat-template interpreter, as Python's json module reads and writes it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "model/chat_template/value.h"

namespace runahead::jinja {

// Keeps the order of keys. kInvalidArgument for invalid UTF-8, integers beyond 64 bits signed, or too deep nesting.
Result<Value> from_json(const nlohmann::ordered_json& json, Budget& budget);

// The options of json.dumps that Hugging Face's tojson filter takes; ensure_ascii is false unless asked for.
struct JsonStyle {
  std::optional<std::string> indent;  // white space of one level; absent: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
  bool ensure_ascii = false;
};
Result<std::string> to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace runahead::jinja
