// The command line: `runahead <command> [flags]`. Every flag may also come from the environment or a file:
// flag > RUNAHEAD_<FLAG> > --config FILE > default. Unknown flags and keys are errors with a suggestion.
// stdout is data, stderr is talk; every command takes -o json. Exit codes: base/error_code.cc, docs/operations.md.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace runahead {

// Flags that every command has.
struct CommonOptions {
  std::string config;
  std::string output = "text";       // text, json
  std::string log_level = "info";    // error, warn, info, debug
  std::string log_format = "text";   // text, json
  bool quiet = false;                // errors only
  bool json() const { return output == "json"; }
  std::string effective_log_level() const { return quiet ? "error" : log_level; }
};

class CommandLine {
 public:
  CommandLine();
  // Adds a command; flags are then added to what is returned. `body` runs after parsing.
  CLI::App* add(const std::string& name, const std::string& summary,
                std::function<Result<void>(const CommonOptions&)> body);
  // Parses, runs, prints the error if there is one; returns the exit code.
  int run(int argc, char** argv);

 private:
  struct Command {
    CLI::App* app;
    std::function<Result<void>(const CommonOptions&)> body;
  };
  std::optional<int> parse(std::vector<std::string> words);
  Result<void> apply_environment_and_config(CLI::App& command);
  void warn_of_unknown_variables() const;
  std::vector<std::string> all_keys() const;
  int report(const Error& error) const;
  int finish(int code) const;
  int usage_error(const std::string& message, const CLI::App& app) const;
  int unknown_argument(const std::string& extra, const CLI::App& app) const;
  int unknown_command(const std::string& word) const;

  CLI::App app_;
  CommonOptions common_;
  std::map<std::string, Command> commands_;
};

}  // namespace runahead
