#include "services/commands/command_line.h"

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "services/version.h"

namespace runahead {
namespace {

constexpr int kUsageExitCode = 2;

std::string long_name(const CLI::Option& option) {
  return option.get_lnames().empty() ? std::string() : option.get_lnames().front();
}

// "threads-per-worker" -> "RUNAHEAD_THREADS_PER_WORKER"
std::string environment_name(std::string key) {
  std::string name = "RUNAHEAD_";
  for (char c : key) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

// Takes over values as if they had been given as flags. CLI11 throws for values of the wrong type.
Result<void> set(CLI::Option& option, const std::vector<std::string>& values, const std::string& origin) {
  try {
    for (const std::string& value : values) option.add_result(value);
    option.run_callback();
  } catch (const CLI::Error& error) {
    return fail(ErrorCode::kInvalidConfig, origin + ": " + error.what(), long_name(option));
  }
  return {};
}

}  // namespace

CommandLine::CommandLine() : app_("Runahead: answers long prompts sooner, on several machines.", "runahead") {
  app_.require_subcommand(1);
  app_.set_version_flag("--version", std::string("runahead ") + kVersion);
  app_.footer("`runahead <command> --help` explains a command. Exit codes: docs/operations.md.");
}

CLI::App* CommandLine::add(const std::string& name, const std::string& summary,
                           std::function<Result<void>(const CommonOptions&)> body) {
  CLI::App* command = app_.add_subcommand(name, summary);
  command->add_option("--config", common_.config, "YAML file with flags as keys");
  command->add_option("-o,--output", common_.output, "text or json")->check(CLI::IsMember({"text", "json"}));
  command->add_option("--log-level", common_.log_level, "error, warn, info or debug")
      ->check(CLI::IsMember({"error", "warn", "info", "debug"}));
  command->add_option("--log-format", common_.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  command->add_flag("-q,--quiet", common_.quiet, "errors only");
  commands_[name] = {command, std::move(body)};
  return command;
}

std::vector<std::string> CommandLine::all_keys() const {
  std::vector<std::string> keys;
  for (const auto& [name, command] : commands_)
    for (const CLI::Option* option : command.app->get_options())
      if (const std::string key = long_name(*option); !key.empty() && key != "help") keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

Result<void> CommandLine::apply_environment_and_config(CLI::App& command) {
  ConfigFile file;
  if (common_.config.empty())
    if (const char* path = std::getenv("RUNAHEAD_CONFIG")) common_.config = path;
  if (!common_.config.empty()) {
    file = TRY(read_config_file(common_.config));
    const std::vector<std::string> keys = all_keys();
    const auto check = [&](const ConfigFile::Values& values) -> Result<void> {
      for (const auto& [key, value] : values)
        if (!std::binary_search(keys.begin(), keys.end(), key))
          return fail(ErrorCode::kInvalidConfig,
                      common_.config + ": unknown key '" + key + "'" + did_you_mean(key, keys), key);
      return {};
    };
    TRY(check(file.top_level));
    for (const auto& [section, values] : file.sections) {
      if (!commands_.contains(section))
        return fail(ErrorCode::kInvalidConfig, common_.config + ": unknown section '" + section +
                                                   "'; sections are named after commands", section);
      TRY(check(values));
    }
  }
  const ConfigFile::Values& section = file.sections[command.get_name()];
  for (CLI::Option* option : command.get_options()) {
    const std::string key = long_name(*option);
    if (key.empty() || option->count() > 0 || key == "help" || key == "config") continue;
    if (const char* value = std::getenv(environment_name(key).c_str())) {
      TRY(set(*option, {value}, environment_name(key)));
    } else if (const auto it = section.find(key); it != section.end()) {
      TRY(set(*option, it->second, common_.config + ": " + command.get_name() + "." + key));
    } else if (const auto top = file.top_level.find(key); top != file.top_level.end()) {
      TRY(set(*option, top->second, common_.config + ": " + key));
    }
  }
  return {};
}

int CommandLine::report(const Error& error) const {
  if (common_.json()) {
    const nlohmann::json body = {{"error",
                                  {{"code", name(error.code)}, {"message", error.message}, {"param", error.param}}}};
    std::printf("%s\n", body.dump().c_str());
  }
  std::fprintf(stderr, "runahead: %s\n", error.message.c_str());
  return exit_code(error.code);
}

int CommandLine::usage_error(const std::string& message, const CLI::App& app) const {
  std::fprintf(stderr, "runahead: %s\nTry `%s --help`.\n", message.c_str(),
               (&app == &app_ ? std::string("runahead") : "runahead " + app.get_name()).c_str());
  return kUsageExitCode;
}

int CommandLine::run(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "";
  const CLI::App* chosen = commands_.contains(word) ? commands_[word].app : &app_;
  try {
    app_.parse(argc, argv);
  } catch (const CLI::CallForVersion& version) {
    std::printf("%s\n", version.what());
    return 0;
  } catch (const CLI::CallForHelp&) {
    std::printf("%s", chosen->help().c_str());
    return 0;
  } catch (const CLI::ExtrasError&) {
    std::vector<std::string> flags;
    for (const CLI::Option* option : chosen->get_options()) flags.push_back("--" + long_name(*option));
    const std::vector<std::string> extras = chosen->remaining(true);
    const std::string extra = extras.empty() ? word : extras.front();
    return usage_error("unknown argument '" + extra + "'" + did_you_mean(extra, flags), *chosen);
  } catch (const CLI::ParseError& error) {
    if (chosen == &app_) {
      std::vector<std::string> names;
      for (const auto& [name, command] : commands_) names.push_back(name);
      if (word.empty() || word.starts_with("-")) return std::printf("%s", app_.help().c_str()), kUsageExitCode;
      return usage_error("unknown command '" + word + "'" + did_you_mean(word, names), *chosen);
    }
    return usage_error(error.what(), *chosen);
  }
  const Command& command = commands_.at(app_.get_subcommands().front()->get_name());
  if (const auto applied = apply_environment_and_config(*command.app); !applied) return report(applied.error());
  init_logging("runahead", common_.quiet ? "error" : common_.log_level, common_.log_format == "json");
  const Result<void> result = command.body(common_);
  return result ? 0 : report(result.error());
}

}  // namespace runahead
