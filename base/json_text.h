// Where bytes from outside (prompts, paths, names of workers, messages that quote them) become text that others read. They
// need not be UTF-8, and nlohmann-json throws on what is not: here they become U+FFFD. tests/tidy keeps dump() out of every
// other file. Input that must be valid is refused where it is read (services/commands/input.h).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace runahead {

// Never throws. indent: spaces a level; -1 writes one line.
std::string to_text(const nlohmann::json& json, int indent);
std::string to_text(const nlohmann::json& json);  // one line
std::string to_ordered_text(const nlohmann::ordered_json& json);  // one line, keys in their order

// One line for people: control characters as JSON escapes them (\n, \u001b), cut after `bytes_max`.
std::string printable_line(std::string_view bytes, size_t bytes_max);

}  // namespace runahead
