// What bash, zsh and fish need to complete runahead's commands, flags and the values that a flag takes. The scripts hold the
// whole table, so that no key press starts a process. Pure.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

namespace runahead {

// shell: "bash", "zsh" or "fish".
std::string completion_script(const CLI::App& app, std::string_view shell);

}  // namespace runahead
