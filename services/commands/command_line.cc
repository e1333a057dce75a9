#include "services/commands/command_line.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "base/log.h"
#include "services/commands/exit_codes.h"
#include "services/commands/output.h"
#include "services/version.h"

namespace runahead {
namespace {

constexpr size_t kSentenceBytesMax = 4 << 10;  // what a person reads
constexpr std::string_view kEnvironmentPrefix = "RUNAHEAD_";

// "threads-per-worker" -> "RUNAHEAD_THREADS_PER_WORKER"
std::string environment_name(std::string key) {
  std::string name(kEnvironmentPrefix);
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

// The reverse: "RUNAHEAD_THREADS=2" -> "threads"; empty for a variable that is not ours.
std::string key_of(std::string_view entry) {
  const std::string_view variable = entry.substr(0, entry.find('='));
  if (!variable.starts_with(kEnvironmentPrefix)) return {};
  std::string key(variable.substr(kEnvironmentPrefix.size()));
  for (char& c : key) c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return key;
}

// "--workers: At Most 1 required but received 2", as CLI11 has it.
std::string clearer(std::string message) {
  if (const size_t twice = message.find(": At Most 1 required but received "); twice != std::string::npos)
    return message.substr(0, twice) + " is given more than once";
  constexpr std::string_view kExcludes = " excludes ";
  if (const size_t pair = message.find(kExcludes); pair != std::string::npos)
    message.replace(pair, kExcludes.size(), " does not go with ");
  return message;
}

// Before anything is parsed: a wrong flag, too, is answered in the form that was asked for.
bool json_is_asked_for(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    const bool flag = words[i] == "-o" || words[i] == "--output";
    if ((flag && i + 1 < words.size() && words[i + 1] == "json") || words[i] == "-ojson" || words[i] == "--output=json")
      return true;
  }
  const char* value = std::getenv("RUNAHEAD_OUTPUT");
  return value != nullptr && std::string_view(value) == "json";
}

}  // namespace

CommandLine::CommandLine() : app_("Runahead: answers long prompts sooner, on several machines.", "runahead") {
  app_.require_subcommand(1);
  app_.option_defaults()->always_capture_default();  // help shows the default of every flag
  app_.set_version_flag("-V,--version", std::string("runahead ") + kVersion, "print the version");
  app_.footer(
      "`runahead <command> --help` explains a command, `runahead man` all of them.\n\nExit codes, the same for every "
      "command:\n" +
      exit_codes_text());
}

CLI::App* CommandLine::add(const std::string& name, const std::string& summary,
                           std::function<Result<void>(const CommonOptions&)> body) {
  return add_with_code(name, summary, [body = std::move(body)](const CommonOptions& common) -> Result<int> {
    TRY(body(common));
    return 0;
  });
}

CLI::App* CommandLine::add_with_code(const std::string& name, const std::string& summary,
                                     std::function<Result<int>(const CommonOptions&)> body) {
  CLI::App* command = app_.add_subcommand(name, summary);
  command->add_option("--config", common_.config, "YAML file with flags as keys; without it there is none");
  command->add_option("-o,--output", common_.output, "text or json")->check(CLI::IsMember({"text", "json"}));
  command->add_option("--log-level", common_.log_level, "error, warn, info or debug")
      ->check(CLI::IsMember({"error", "warn", "info", "debug"}));
  command->add_option("--log-format", common_.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  command->add_flag("-q,--quiet", common_.quiet, "errors only, no bars");
  command->set_version_flag("-V,--version", std::string("runahead ") + kVersion, "print the version")->group("");
  commands_[name] = {command, std::move(body)};
  return command;
}

std::vector<std::string> CommandLine::all_keys() const {
  std::vector<std::string> keys;
  for (const auto& [name, command] : commands_)
    for (std::string& key : keys_of(*command.app)) keys.push_back(std::move(key));
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

std::vector<std::string> CommandLine::command_names() const {
  std::vector<std::string> names;
  for (const auto& [name, command] : commands_) names.push_back(name);
  return names;
}

// A variable that is nearly a flag's is a slip of the pen; others may be anybody's (Kubernetes sets RUNAHEAD_..._PORT).
void CommandLine::warn_of_unknown_variables() const {
  const std::vector<std::string> keys = all_keys();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string key = key_of(*entry);
    if (key.empty() || std::binary_search(keys.begin(), keys.end(), key)) continue;
    if (const std::string near = suggestion(key, keys); !near.empty())
      log::warn("the environment variable {} is not known, did you mean {}?", environment_name(key),
                environment_name(near));
  }
}

// A key of the top level must be a flag of some command, one of a section a flag of that command: a key that nobody reads
// would be believed.
Result<void> CommandLine::check_keys(const ConfigFile& file) const {
  const auto check = [&](const ConfigFile::Values& values, std::vector<std::string> keys) -> Result<void> {
    std::erase(keys, "config");  // a file names no other file
    for (const auto& [key, entry] : values)
      if (std::ranges::find(keys, key) == keys.end())
        return fail(
            ErrorCode::kInvalidConfig,
            common_.config + ":" + std::to_string(entry.line) + ": unknown key '" + key + "'" + did_you_mean(key, keys),
            key);
    return {};
  };
  TRY(check(file.top_level, all_keys()));
  for (const auto& [section, values] : file.sections) {
    const auto command = commands_.find(section);
    if (command == commands_.end())
      return fail(ErrorCode::kInvalidConfig,
                  common_.config + ": unknown section '" + section + "'; sections are named after commands" +
                      did_you_mean(section, command_names()),
                  section);
    TRY(check(values, keys_of(*command->second.app)));
  }
  return {};
}

Result<void> CommandLine::apply_environment_and_config(CLI::App& command) {
  ConfigFile file;
  if (common_.config.empty())
    if (const char* path = std::getenv("RUNAHEAD_CONFIG")) common_.config = path;
  if (!common_.config.empty()) {
    file = TRY(read_config_file(common_.config));
    TRY(check_keys(file));
  }
  const ConfigFile::Values& section = file.sections[command.get_name()];
  const auto line_of = [&](const ConfigFile::Entry& entry) {
    return common_.config + ":" + std::to_string(entry.line);
  };
  for (CLI::Option* option : command.get_options()) {
    const std::string key = long_name(*option);
    if (key.empty() || key == "help" || key == "version" || key == "config") continue;
    if (option->count() > 0) {
      origins_[key] = {Origin::kFlag, "--" + key};
    } else if (const char* value = std::getenv(environment_name(key).c_str()); value && *value) {
      TRY(set(*option, {value}, environment_name(key)));
      origins_[key] = {Origin::kEnvironment, environment_name(key)};
    } else if (const auto it = section.find(key); it != section.end()) {
      TRY(set(*option, it->second.values, line_of(it->second) + ": " + command.get_name() + "." + key));
      origins_[key] = {Origin::kFile, line_of(it->second)};
    } else if (const auto top = file.top_level.find(key); top != file.top_level.end()) {
      TRY(set(*option, top->second.values, line_of(top->second) + ": " + key));
      origins_[key] = {Origin::kFile, line_of(top->second)};
    }
  }
  return {};
}

int CommandLine::report(const Error& error) const {
  if (error.message.empty()) return exit_code(error.code);  // it has been said
  if (common_.json() && !json_was_printed())
    print_json({{"error", {{"code", name(error.code)}, {"message", error.message}, {"param", error.param}}}});
  if (common_.log_format == "json") log::error("{}", error.message);
  else std::fprintf(stderr, "runahead: %s\n", printable_line(error.message, kSentenceBytesMax).c_str());
  return exit_code(error.code);
}

int CommandLine::usage_error(const std::string& message, const CLI::App& app) const {
  const std::string command = &app == &app_ ? "runahead" : "runahead " + app.get_name();
  return report({ErrorCode::kInvalidArgument, message + "; see `" + command + " --help`"});
}

// The flag or argument that no flag of the command is.
int CommandLine::unknown_argument(const std::string& extra, const CLI::App& app) const {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) flags.push_back("--" + long_name(*option));
  return usage_error("unknown argument '" + extra + "'" + did_you_mean(extra, flags), app);
}

int CommandLine::unknown_command(const std::string& word) const {
  return usage_error("unknown command '" + word + "'" + did_you_mean(word, command_names()), app_);
}

// The exit code, if the words ask for nothing that a command does or cannot be understood.
std::optional<int> CommandLine::parse(std::vector<std::string> words) {
  if (words.empty()) return std::fputs(app_.help().c_str(), stderr), exit_code(ErrorCode::kInvalidArgument);
  if (words.front() == "version") words.front() = "--version";
  if (words.front() == "help") {  // `help run` is `run --help`
    words.erase(words.begin());
    words.push_back("--help");
  }
  const std::string word = words.front();
  const bool is_command = commands_.contains(word);
  if (!is_command && !word.starts_with("-")) return unknown_command(word);
  const CLI::App& chosen = is_command ? *commands_.at(word).app : app_;
  try {
    std::reverse(words.begin(), words.end());  // as CLI11 takes them
    app_.parse(std::move(words));
  } catch (const CLI::CallForVersion& version) {
    return print_text(std::string(version.what()) + "\n"), finish(0);
  } catch (const CLI::CallForHelp&) {
    return print_text(is_command ? chosen.help("runahead") : app_.help()), finish(0);
  } catch (const CLI::ExtrasError&) {
    const std::vector<std::string> extras = app_.remaining(true);
    return unknown_argument(extras.empty() ? word : extras.front(), chosen);
  } catch (const CLI::ParseError& error) {
    return is_command ? usage_error(clearer(error.what()), chosen) : unknown_argument(word, chosen);
  }
  return std::nullopt;
}

int CommandLine::finish(int code) const {
  const Result<void> written = finish_output();
  return written || code != 0 ? code : report(written.error());
}

std::vector<std::string> CommandLine::take_config_word(std::vector<std::string> words) {
  if (words.size() < 2 || words[0] != "config" || !commands_.contains(words[1])) return words;
  show_config_ = true;
  words.erase(words.begin());
  for (CLI::Option* option : commands_.at(words.front()).app->get_options()) option->required(false);
  return words;
}

int CommandLine::run(int argc, char** argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (json_is_asked_for(words)) common_.output = "json";
  if (const std::optional<int> code = parse(take_config_word(std::move(words)))) return *code;
  const Command& command = commands_.at(app_.get_subcommands().front()->get_name());
  if (const auto applied = apply_environment_and_config(*command.app); !applied) return report(applied.error());
  init_logging(command.app->get_name(), common_.effective_log_level(), common_.log_format == "json");
  warn_of_unknown_variables();
  if (show_config_) return print_text(effective_config(*command.app, origins_, common_.json())), finish(0);
  const Result<int> result = command.body(common_);
  return result ? finish(*result) : report(result.error());
}

}  // namespace runahead
