// Times as the API says them. Pure; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

namespace runahead {

// Whole seconds since 1970; null for 0, which is not yet or never.
inline nlohmann::json seconds_or_null(int64_t unix_ms) {
  return unix_ms == 0 ? nlohmann::json(nullptr) : nlohmann::json(unix_ms / 1000);
}

}  // namespace runahead
