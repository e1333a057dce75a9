#include "services/commands/manual.h"

#include <fmt/format.h>

#include <algorithm>

#include "services/commands/exit_codes.h"
#include "services/commands/flag_table.h"
#include "services/version.h"

namespace runahead {
namespace {

// Text of ours as roff: backslashes, minus signs that are meant as such, and lines that would begin with a request.
std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') out += "\\e";
    else if (c == '-') out += "\\-";
    else if (c == '\n') out += ' ';
    else out += c;
  }
  if (out.starts_with('.') || out.starts_with('\'')) out.insert(0, "\\&");
  return out;
}

std::string flag_text(const FlagRow& flag) {
  const std::string value = flag.kind.empty() ? "" : " \\fI" + roff(flag.kind) + "\\fR";
  std::string text = ".TP\n";
  if (flag.positional) return text + "\\fI" + roff(flag.name) + "\\fR\n" + roff(flag.what) + "\n";
  if (!flag.short_name.empty()) text += "\\fB\\-" + flag.short_name + "\\fR, ";
  text += "\\fB\\-\\-" + roff(flag.name) + "\\fR" + value + "\n" + roff(flag.what);
  std::string choices;
  for (const std::string& choice : flag.choices) choices += (choices.empty() ? "" : ", ") + choice;
  if (!choices.empty() && flag.what.find(flag.choices.front()) == std::string::npos) text += ": " + roff(choices);
  if (!flag.default_text.empty()) text += " (default: " + roff(flag.default_text) + ")";
  return text + (flag.required ? "; required\n" : "\n");
}

// In every command alike: said once.
bool is_common(const FlagRow& flag) {
  static const std::vector<std::string> kCommon = {"config", "output", "log-level", "log-format", "quiet", "help"};
  return !flag.positional && std::ranges::find(kCommon, flag.name) != kCommon.end();
}

}  // namespace

std::string manual_page(const CLI::App& app) {
  const std::vector<CommandRow> commands = flag_table(app);
  std::string text = fmt::format(".TH RUNAHEAD 1 \"\" \"runahead {}\" \"User Commands\"\n", roff(kVersion));
  text += ".SH NAME\nrunahead \\- answers long prompts sooner, on several machines\n";
  text += ".SH SYNOPSIS\n.B runahead\n\\fIcommand\\fR [\\fIflags\\fR]\n";
  text +=
      ".SH DESCRIPTION\nRunahead serves large language models with a low time to first token on long prompts: a prompt "
      "is cut "
      "into chunks that a chain of workers computes at the same time. One binary has every role and every tool.\n"
      "Standard output holds data, standard error what is said to people.\n";
  text += ".SH COMMON FLAGS\n";
  for (const FlagRow& flag : commands.front().flags)
    if (is_common(flag)) text += flag_text(flag);
  text += ".SH COMMANDS\n";
  for (const CommandRow& command : commands) {
    text += ".SS runahead " + roff(command.name) + "\n" + roff(command.what) + "\n";
    for (const FlagRow& flag : command.flags)
      if (!is_common(flag)) text += flag_text(flag);
  }
  text +=
      ".SH CONFIGURATION\nA flag wins over the environment variable RUNAHEAD_FLAG (capitals, _ for \\-), that over the "
      "section of the command in the YAML file of \\fB\\-\\-config\\fR, that over the file's top level, that over the "
      "default. \\fBrunahead config\\fR \\fIcommand\\fR shows each value and its origin.\n";
  text +=
      ".SH ENVIRONMENT\n.TP\n.B RUNAHEAD_CACHE_DIR\nfolder of models, packed weights and what was measured (default: "
      "~/.cache/runahead)\n.TP\n.B RUNAHEAD_MODEL_DIR\nfolder of models (default: models in the cache folder)\n"
      ".TP\n.B RUNAHEAD_API_KEY\nkey of the API for commands that talk to a cluster\n"
      ".TP\n.BR NO_COLOR ,\\  CLICOLOR=0 ,\\  TERM=dumb\nno colours\n";
  text += ".SH EXIT STATUS\n";
  for (const ExitCode& row : kExitCodes) text += fmt::format(".TP\n.B {}\n{}\n", row.code, roff(row.meaning));
  text +=
      ".SH EXAMPLES\n.nf\nrunahead run \\-\\-model smollm2 \\-\\-workers 2 \\-p \"Name a colour.\"\n"
      "runahead serve \\-\\-workers 2\nrunahead top \\-\\-url 127.0.0.1:8000\n.fi\n";
  return text;
}

}  // namespace runahead
