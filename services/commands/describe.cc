// runahead config, completion, man: the commands describe themselves.
#include <fmt/format.h>

#include "base/config.h"
#include "services/commands/commands.h"
#include "services/commands/completion.h"
#include "services/commands/manual.h"
#include "services/commands/output.h"

namespace runahead {

// `config <command>` never comes here: CommandLine takes the word off and shows the command's values.
void add_describe(CommandLine& line) {
  const auto word = std::make_shared<std::string>();
  CLI::App* config = line.add(
      "config", "show the values that a command would run with, and where each comes from",
      [word, &line](const CommonOptions&) -> Result<void> {
        std::vector<std::string> names;
        for (const CLI::App* command : line.app().get_subcommands({})) names.push_back(command->get_name());
        if (word->empty())
          return fail(ErrorCode::kInvalidArgument, "name the command first, then its flags: `runahead config prefill`");
        return fail(ErrorCode::kInvalidArgument, "unknown command '" + *word + "'" + did_you_mean(*word, names));
      });
  config->add_option("command", *word, "whose values to show; its own flags may follow");

  const auto shell = std::make_shared<std::string>();
  CLI::App* completion = line.add("completion", "print the completion of a shell: bash, zsh or fish",
                                  [shell, &line](const CommonOptions&) -> Result<void> {
                                    print_text(completion_script(line.app(), *shell));
                                    return {};
                                  });
  completion->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));

  line.add("man", "print the manual page; `runahead man | man -l -` shows it", [&line](const CommonOptions&) {
    print_text(manual_page(line.app()));
    return Result<void>{};
  });
}

}  // namespace runahead
