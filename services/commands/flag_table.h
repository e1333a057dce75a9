// The commands and their flags as data, read from the one table that parses them (CLI11): what completions and the manual
// are made of. Pure.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace runahead {

struct FlagRow {
  std::string name;  // "threads", without dashes; of an argument without flag its name
  std::string short_name;  // "q"; empty: none
  std::string what;  // one sentence
  std::string kind;  // "INT", "TEXT"; empty: a flag without a value
  std::string default_text;
  std::vector<std::string> choices;  // all values that it takes; empty: any
  bool positional = false, required = false;
};

struct CommandRow {
  std::string name, what;
  std::vector<FlagRow> flags;  // in the order of help, hidden ones left out
};

std::vector<CommandRow> flag_table(const CLI::App& app);

}  // namespace runahead
