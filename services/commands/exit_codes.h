// The exit codes of every command, for --help, the manual and docs/operations.md. Which error has which: base/error_code.cc.
#pragma once

#include <string>
#include <string_view>

namespace runahead {

struct ExitCode {
  int code;
  std::string_view meaning;
};

inline constexpr int kMissed = 6;  // no error: the command did what it should

inline constexpr ExitCode kExitCodes[] = {
    {0, "done"},
    {1, "failure; the message says which"},
    {2, "usage: a flag, a value, a prompt that cannot be served"},
    {3, "configuration: a file, a model, a port; or what is asked for is not there"},
    {4, "the server or the coordinator cannot be reached, or has no workers"},
    {5, "workers were lost and no attempt was left"},
    {kMissed, "what was measured misses what was asked for (bench load --fail-if)"},
    {124, "a deadline passed"},
    {130, "interrupted"},
};

inline std::string exit_codes_text() {
  std::string text;
  for (const ExitCode& row : kExitCodes) {
    const std::string code = std::to_string(row.code);
    text += "  " + code + std::string(6 - code.size(), ' ') + std::string(row.meaning) + "\n";
  }
  return text;
}

}  // namespace runahead
