#include "base/json_text.h"

#include <nlohmann/json.hpp>

namespace runahead {

using nlohmann::json;

std::string to_text(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string to_text(const json& value) { return to_text(value, -1); }

std::string to_ordered_text(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string printable_line(std::string_view bytes, size_t bytes_max) {
  std::string escaped = to_text(json(bytes.substr(0, bytes_max)));
  std::string line;
  for (size_t i = 1; i + 1 < escaped.size(); ++i) {  // inside the quotes
    const bool is_escape = escaped[i] == '\\' && (escaped[i + 1] == '"' || escaped[i + 1] == '\\');
    line += is_escape ? escaped[++i] : escaped[i];
  }
  if (bytes.size() > bytes_max) line += "... (" + std::to_string(bytes.size()) + " bytes)";
  return line;
}

}  // namespace runahead
