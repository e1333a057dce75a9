// The command line: `runahead <command> [flags]`. Every flag may also come from the environment or a file:
// flag > RUNAHEAD_<FLAG> > --config FILE > default. Unknown flags and keys are errors with a suggestion.
// stdout is data, stderr is talk; every command takes -o json. Exit codes: services/commands/exit_codes.h.
// `runahead config <command> [its flags]` shows what the command would run with, and runs nothing.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"
#include "services/commands/effective_config.h"

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
  // The same of a command that may run to its end and yet say no: the value is its exit code.
  CLI::App* add_with_code(const std::string& name, const std::string& summary,
                          std::function<Result<int>(const CommonOptions&)> body);
  // For what describes the commands themselves: completions, the manual.
  const CLI::App& app() const { return app_; }
  // Parses, runs, prints the error if there is one; returns the exit code.
  int run(int argc, char** argv);

 private:
  struct Command {
    CLI::App* app;
    std::function<Result<int>(const CommonOptions&)> body;
  };
  std::optional<int> parse(std::vector<std::string> words);
  Result<void> apply_environment_and_config(CLI::App& command);
  Result<void> check_keys(const ConfigFile& file) const;
  // Without words that ask for another command's configuration.
  std::vector<std::string> take_config_word(std::vector<std::string> words);
  void warn_of_unknown_variables() const;
  std::vector<std::string> all_keys() const;
  std::vector<std::string> command_names() const;
  int report(const Error& error) const;
  int finish(int code) const;
  int usage_error(const std::string& message, const CLI::App& app) const;
  int unknown_argument(const std::string& extra, const CLI::App& app) const;
  int unknown_command(const std::string& word) const;

  CLI::App app_;
  CommonOptions common_;
  std::map<std::string, Command> commands_;
  Origins origins_;  // of the flags of the command that was parsed
  bool show_config_ = false;
};

}  // namespace runahead
