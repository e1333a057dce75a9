// What a command would run with, and where each value comes from: `runahead config <command>`. Pure, of flags that were parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace runahead {

struct Origin {
  enum class Kind { kDefault, kFlag, kEnvironment, kFile };
  using enum Kind;

  Kind kind = kDefault;
  std::string where;  // "--threads", "RUNAHEAD_THREADS", "cluster.yaml:3"
};
using Origins = std::map<std::string, Origin>;  // by key; what is missing has its default

// "threads" of -t,--threads; empty of what has no long name.
std::string long_name(const CLI::Option& option);
// The keys that a file or the environment may give to a command.
std::vector<std::string> keys_of(const CLI::App& command);
// A key of an API or the like, which no output may show.
bool is_secret(std::string_view key);

// A file for --config with each origin as a comment, or one JSON object. Values of secrets are left out.
std::string effective_config(const CLI::App& command, const Origins& origins, bool json);

}  // namespace runahead
