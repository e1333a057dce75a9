// Logging: one line an event, on stderr. Never prompts, never keys. Levels: error, warn, info, debug. What a message
// quotes may come from strangers: control characters are escaped, what is not UTF-8 is replaced, long ones are cut.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

namespace runahead {

// Called once at start by services; `process` names the role in every line. json: one JSON object a line.
// Colours only on a terminal, and not if NO_COLOR is set (no-color.org), CLICOLOR is 0 or TERM is dumb.
void init_logging(std::string_view process, std::string_view level, bool json);

// TERM is set and not "dumb": a bar may redraw its line there.
bool terminal_understands_escapes();

namespace log = spdlog;  // log::info("listening on {}", address)

}  // namespace runahead
