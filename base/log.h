// Logging: one line an event, on stderr. Never prompts, never keys. Levels: error, warn, info, debug.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

namespace runahead {

// Called once at start by services; `process` names the role in every line. json: one JSON object a line.
void init_logging(std::string_view process, std::string_view level, bool json);

namespace log = spdlog;  // log::info("listening on {}", address)

}  // namespace runahead
