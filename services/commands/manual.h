// The manual page, in roff, of the commands and flags that the parser knows. Pure.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace runahead {

std::string manual_page(const CLI::App& app);

}  // namespace runahead
