#include "services/commands/completion.h"

#include <fmt/format.h>

#include "base/check.h"
#include "services/commands/flag_table.h"

namespace runahead {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string with_escapes(std::string_view text, std::string_view escaped) {
  std::string out;
  for (const char c : text) {
    if (escaped.find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

// In single quotes for bash and zsh, where a quote cannot be escaped.
std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += "'\\''";
    else out += c;
  }
  return out + "'";
}

std::vector<std::string> names_of(const std::vector<CommandRow>& commands) {
  std::vector<std::string> names;
  for (const CommandRow& command : commands) names.push_back(command.name);
  return names;
}

// Arguments that name a command: `help`, and `config` as its first.
bool takes_command(std::string_view command) { return command == "config" || command == "help"; }

std::string bash_script(const std::vector<CommandRow>& commands) {
  std::string values, flags;
  for (const CommandRow& command : commands) {
    std::vector<std::string> words, valued, arguments;
    for (const FlagRow& flag : command.flags) {
      if (flag.positional) {
        arguments.insert(arguments.end(), flag.choices.begin(), flag.choices.end());
        continue;
      }
      std::string pattern = command.name + ":--" + flag.name;
      if (!flag.short_name.empty()) pattern += "|" + command.name + ":-" + flag.short_name;
      words.push_back("--" + flag.name);
      if (!flag.kind.empty() && flag.choices.empty()) valued.push_back(pattern);
      if (!flag.choices.empty())
        values += fmt::format("    {}) words={} ;;\n", pattern, in_quotes(joined(flag.choices)));
    }
    for (const std::string& pattern : valued) values += fmt::format("    {}) compopt -o default; return ;;\n", pattern);
    flags += fmt::format("      {}) words={}; arguments={} ;;\n", command.name, in_quotes(joined(words)),
                         in_quotes(joined(takes_command(command.name) ? names_of(commands) : arguments)));
  }
  return fmt::format(R"(# bash completion of runahead, made by `runahead completion bash`.
_runahead() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before= command= words= arguments= place=1
  COMPREPLY=()
  [[ ${{COMP_WORDS[1]}} == config && $COMP_CWORD -gt 2 ]] && place=2
  if ((COMP_CWORD > place)); then
    command=${{COMP_WORDS[place]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    # bash takes = as a word of its own
    if [[ $word == "=" ]]; then word=; elif [[ $before == "=" ]]; then before=${{COMP_WORDS[COMP_CWORD - 2]}}; fi
  fi
  case $command:$before in
{}  esac
  if [[ -z $words && -z $command ]]; then
    words={}
  elif [[ -z $words ]]; then
    case $command in
{}    esac
    if [[ $word != -* ]]; then
      words=$arguments
      [[ -n $words ]] || compopt -o default
    fi
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -F _runahead runahead
)",
                     values, in_quotes(joined(names_of(commands)) + " help version --help --version"),
                     flags + fmt::format("      help) arguments={} ;;\n", in_quotes(joined(names_of(commands)))));
}

// What a flag or argument takes, as _arguments wants it behind its message.
std::string zsh_action(const FlagRow& flag) {
  const std::string title = with_escapes(flag.kind.empty() ? flag.name : flag.kind, ":");
  if (!flag.choices.empty()) return fmt::format(":{}:({})", title, joined(flag.choices));
  return fmt::format(":{}:_files", title);
}

std::string zsh_script(const std::vector<CommandRow>& commands) {
  std::string list, cases;
  for (const CommandRow& command : commands) {
    list += fmt::format("    {}\n", in_quotes(command.name + ":" + with_escapes(command.what, ":\\")));
    std::string specs;
    for (const FlagRow& flag : command.flags) {
      if (flag.positional) {
        const std::string action = takes_command(command.name) ? ":command:(" + joined(names_of(commands)) + ")"
                                                               : ":" + zsh_action(flag).substr(1);
        specs += fmt::format(" \\\n        {}", in_quotes(":" + action.substr(1)));
        continue;
      }
      const std::string what = "[" + with_escapes(flag.what, "[]:\\") + "]";
      const std::string action = flag.kind.empty() ? "" : zsh_action(flag);
      specs += fmt::format(" \\\n        {}", in_quotes("*--" + flag.name + what + action));
      if (!flag.short_name.empty())
        specs += fmt::format(" \\\n        {}", in_quotes("*-" + flag.short_name + what + action));
    }
    cases += fmt::format("    {})\n      _arguments{} ;;\n", command.name, specs);
  }
  return fmt::format(R"(#compdef runahead
# zsh completion of runahead, made by `runahead completion zsh`.
_runahead() {{
  local -a commands=(
{}  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  if [[ $words[2] == config ]] && ((CURRENT > 3)); then
    shift words
    ((CURRENT--))
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
{}  esac
}}
if [[ $funcstack[1] == _runahead ]]; then _runahead "$@"; else compdef _runahead runahead; fi
)",
                     list, cases);
}

std::string fish_script(const std::vector<CommandRow>& commands) {
  const auto quote = [](std::string_view text) { return "'" + with_escapes(text, "'\\") + "'"; };
  std::string text = "# fish completion of runahead, made by `runahead completion fish`.\n";
  for (const CommandRow& command : commands)
    text += fmt::format("complete -c runahead -n __fish_use_subcommand -f -a {} -d {}\n", command.name,
                        quote(command.what));
  for (const CommandRow& command : commands) {
    const std::string begin = fmt::format("complete -c runahead -n '__fish_seen_subcommand_from {}'", command.name);
    if (takes_command(command.name)) text += fmt::format("{} -f -a {}\n", begin, quote(joined(names_of(commands))));
    for (const FlagRow& flag : command.flags) {
      const std::string values = flag.choices.empty() ? "" : " -f -a " + quote(joined(flag.choices));
      if (flag.positional) {
        if (!values.empty()) text += fmt::format("{}{}\n", begin, values);
        continue;
      }
      const std::string short_name = flag.short_name.empty() ? "" : " -s " + flag.short_name;
      text += fmt::format("{} -l {}{}{}{} -d {}\n", begin, flag.name, short_name, flag.kind.empty() ? "" : " -r",
                          values, quote(flag.what));
    }
  }
  return text;
}

}  // namespace

std::string completion_script(const CLI::App& app, std::string_view shell) {
  const std::vector<CommandRow> commands = flag_table(app);
  if (shell == "zsh") return zsh_script(commands);
  if (shell == "fish") return fish_script(commands);
  RUNAHEAD_CHECK(shell == "bash", "a shell that is known");
  return bash_script(commands);
}

}  // namespace runahead
