// Pieces of which the grammars of calls are put together (model/grammar/grammar.h). Pure; any thread.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace runahead::grammar {

inline nlohmann::ordered_json text(std::string bytes) { return {{"text", std::move(bytes)}}; }

inline nlohmann::ordered_json sequence(std::initializer_list<nlohmann::ordered_json> parts) {
  return {{"sequence", nlohmann::ordered_json::array_t(parts)}};
}

}  // namespace runahead::grammar
