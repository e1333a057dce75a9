#include "base/json_text.h"

#include <nlohmann/json.hpp>

namespace runahead {

std::string to_text(const nlohmann::json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace runahead
