#include "services/commands/flag_table.h"

#include "services/commands/effective_config.h"

namespace runahead {
namespace {

// "TEXT:{json,text}" -> json, text
std::vector<std::string> choices_of(const std::string& type) {
  const size_t open = type.find('{'), close = type.find('}');
  if (open == std::string::npos || close == std::string::npos || close < open) return {};
  return CLI::detail::split(type.substr(open + 1, close - open - 1), ',');
}

FlagRow row_of(const CLI::Option& option) {
  FlagRow row{.name = option.get_positional() ? option.get_name(true) : long_name(option),
              .short_name = option.get_snames().empty() ? std::string() : option.get_snames().front(),
              .what = option.get_description(),
              .default_text = option.get_default_str(),
              .positional = option.get_positional(),
              .required = option.get_required()};
  if (option.get_expected_max() == 0) return row;
  const std::string type = option.get_type_name();
  row.kind = type.substr(0, type.find_first_of(":{ ["));
  row.choices = choices_of(type);
  return row;
}

}  // namespace

std::vector<CommandRow> flag_table(const CLI::App& app) {
  std::vector<CommandRow> commands;
  for (const CLI::App* command : app.get_subcommands({})) {
    CommandRow row{.name = command->get_name(), .what = command->get_description(), .flags = {}};
    for (const CLI::Option* option : command->get_options())
      if (!option->get_group().empty()) row.flags.push_back(row_of(*option));
    commands.push_back(std::move(row));
  }
  return commands;
}

}  // namespace runahead
