#include "services/gateway/request/structured_output.h"

#include <algorithm>

#include "base/json_text.h"
#include "model/grammar/grammar.h"

namespace runahead {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kDescriptionBytesMax = 16 << 10;

// "/text/format" -> "text.format".
std::string path_of(std::string_view pointer) {
  std::string path(pointer.substr(1));
  std::ranges::replace(path, '/', '.');
  return path;
}

}  // namespace

bool take_response_format(JsonReader& reader, std::optional<Error>& error) {
  const json* format = reader.object("response_format");
  if (format == nullptr) return false;
  JsonReader inner(*format, "response_format", error);
  const std::string type = inner.string("type", kSchemaNameBytesMax).value_or("text");
  if (type != "text" && type != "json_object" && type != "json_schema")
    inner.error("type", "must be text, json_object or json_schema", ErrorCode::kUnsupported);
  if (type == "json_schema") {
    const json* named = inner.object("json_schema");
    if (named == nullptr) return inner.error("json_schema", "is missing"), false;
    JsonReader schema(*named, "response_format.json_schema", error);
    schema.string("name", kSchemaNameBytesMax);
    schema.string("description", kDescriptionBytesMax);
    schema.boolean("strict");  // an answer is always of the schema
    if (schema.object("schema") == nullptr) schema.error("schema", "is missing");
    schema.finish();
  }
  inner.finish();
  return type != "text";
}

Result<std::string> structured_grammar(const std::string& body, const std::string& format_at) {
  const ordered_json whole = parse_in_order(body);  // it was parsed before
  const bool in_chat = whole.at(ordered_json::json_pointer(format_at)).contains("json_schema");
  const std::string schema_at = format_at + (in_chat ? "/json_schema/schema" : "/schema");
  ordered_json grammar;
  if (whole.at(ordered_json::json_pointer(format_at)).at("type") == "json_object") grammar["json_object"] = true;
  else grammar["json_schema"] = whole.at(ordered_json::json_pointer(schema_at));
  std::string text = to_ordered_text(grammar);
  if (const auto compiled = grammar::compile(text); !compiled) {
    Error error = compiled.error();
    error.param = error.param.empty() ? path_of(schema_at) : path_of(schema_at) + "." + error.param;
    error.message = "'" + error.param + "' " + error.message;
    return std::unexpected(std::move(error));
  }
  return text;
}

}  // namespace runahead
