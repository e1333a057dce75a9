// What a command gives out. stdout is data: under -o json exactly one JSON object, the result or the error.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/result.h"

namespace runahead {

// One line, and the last word on stdout: an error that follows goes to stderr alone.
void print_json(const nlohmann::json& object);
bool json_was_printed();

// Data that comes piece by piece. False once stdout takes no more (a full disk, a reader that has gone).
bool print_text(std::string_view text);

// kInternal if something could not be written to stdout.
Result<void> finish_output();

}  // namespace runahead
