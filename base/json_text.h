// The one place where JSON becomes text. Bytes from outside (prompts, paths, names of workers, messages that quote them)
// need not be UTF-8, and nlohmann-json throws on what is not: here they become U+FFFD. tests/tidy keeps dump() out of
// every other file. Input that must be valid is refused where it is read (services/commands/input.h).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace runahead {

// Never throws. indent: spaces a level; -1 writes one line.
std::string to_text(const nlohmann::json& json, int indent = -1);

}  // namespace runahead
